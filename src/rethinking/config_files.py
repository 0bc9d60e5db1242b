"""Reads the YAML of configurations: small files in which every option stands once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

LARGEST_FILE = 2**15  # bytes; a run's config.yaml has about 1,500
LONGEST_VALUE = 2048  # characters


class _PlainLoader(yaml.SafeLoader):
    """Refuses repeated options, and aliases, which can make a small file large. Raises `ValueError`."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError(f"aliases, such as *{self.peek_event().anchor}, are not allowed")  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> Any:
        if len(self.peek_event().value) > LONGEST_VALUE:  # type: ignore[no-untyped-call]
            raise ValueError(f"a value is longer than {LONGEST_VALUE} characters")
        return super().compose_scalar_node(anchor)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len({*names}) < len(names):
            raise ValueError(f"{next(name for name in names if names.count(name) > 1)} is given twice")
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """Returns the content of a YAML file.

    Raises `OSError` for a file that cannot be read. Raises `ValueError` for text that is not YAML, a file above
    `LARGEST_FILE`, a value above `LONGEST_VALUE`, an alias, or an option given twice.
    """
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"the file is larger than {LARGEST_FILE // 1024} KiB")
    try:
        return yaml.load(content.decode(), _PlainLoader)
    except Exception as error:  # PyYAML raises many types for values that its constructors refuse
        words = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError("the file is nested too deeply" if isinstance(error, RecursionError) else words) from None
