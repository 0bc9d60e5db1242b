"""The package's docstrings as Markdown: an extension of Griffe, which `mkdocs.yml` names for the reference."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import textwrap
from pathlib import Path
from typing import Any

from griffe import Class, ExprCall, Extension, Function, Object, Parameter, ParameterKind, Parameters

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"`?\*{0,2}[\w.]+`?(?:, `?\*{0,2}[\w.]+`?)*: ")  # begins a line that says what something is
CODE = re.compile(r"(`[^`]*`)")


class Docstrings(Extension):
    """Makes docstrings Markdown, and gives each a link to its source in the repository."""

    def __init__(self, repository: str) -> None:
        super().__init__()
        self.source = f"{repository}/blob/main"

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring is None or obj.is_module or obj.is_attribute:
            return
        place = f"{Path(str(obj.filepath)).relative_to(ROOT)}#L{obj.lineno}-L{obj.endlineno}"
        obj.docstring.value = f"{as_markdown(obj.docstring.value)}\n\n[Source]({self.source}/{place}){{ .source }}"

    def on_module_instance(self, *, mod: Object, **_: Any) -> None:
        if mod.docstring is not None:
            mod.docstring.value = as_markdown(mod.docstring.value)

    def on_class_members(self, *, cls: Class, **_: Any) -> None:
        if any(str(base) == "NamedTuple" for base in cls.bases):
            cls.set_member("__init__", _constructor(cls))
        self._list_options(cls)

    def _list_options(self, cls: Class) -> None:
        """Adds the options of a configuration with their help texts; the signature shows their defaults alone."""
        calls = {name: field.value for name, field in cls.attributes.items() if isinstance(field.value, ExprCall)}
        calls = {name: call for name, call in calls.items() if str(call.function) == "option"}
        if not calls or cls.docstring is None:
            return
        text, blank, source = cls.docstring.value.rpartition("\n\n")
        for field in dataclasses.fields(getattr(importlib.import_module(cls.module.path), cls.name)):
            if field.name in calls:
                default = calls[field.name].arguments[0]
                cls.attributes[field.name].value = None if field.default is dataclasses.MISSING else default
                text += f"\n\n`{field.name}`\n:   {_escaped(field.metadata['help'])}"
        cls.docstring.value = text + blank + source


def _constructor(cls: Class) -> Function:
    """The `__init__` of a named tuple, which Griffe does not make as it does for dataclasses."""
    kind = ParameterKind.positional_or_keyword
    fields = [field for field in cls.attributes.values() if field.annotation is not None]
    taken = [Parameter(field.name, annotation=field.annotation, kind=kind, default=field.value) for field in fields]
    return Function("__init__", parameters=Parameters(Parameter("self", kind=kind), *taken))


def as_markdown(docstring: str) -> str:
    """Turns lines `name: what it is` below the first paragraph into definitions, and indented lines into code."""
    parts: list[str] = []
    code: list[str] = []
    for paragraph in [*docstring.split("\n\n"), ""]:
        if paragraph and all(line.startswith("    ") for line in paragraph.splitlines()):
            code.append(paragraph)
            continue
        if code:
            parts.append(_block(textwrap.dedent("\n\n".join(code)).rstrip()))
            code = []
        parts.append(_definitions(paragraph) if parts and NAME.match(paragraph) else _escaped(paragraph))
    return "\n\n".join(parts).rstrip()


def _block(code: str) -> str:
    try:
        ast.parse(code)
    except SyntaxError:
        return f"```text\n{code}\n```"
    return f"```python\n{code}\n```"


def _definitions(paragraph: str) -> str:
    made = []
    for line in paragraph.splitlines():
        if name := NAME.match(line):
            names = ", ".join(f"`{one.strip('`')}`" for one in name[0].rstrip(": ").split(", "))
            made.append(f"\n{names}\n:   {_escaped(line[name.end() :])}")
        else:
            made.append(f"    {_escaped(line.strip())}")
    return "\n".join(made).strip()


def _escaped(text: str) -> str:
    """Text in which `<` is no HTML; within backticks it needs no help."""
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in CODE.split(text))
