"""The fenced blocks of a document, followed as a reader would: in order, in one folder."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import shlex
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tyro
from markdown_it import MarkdownIt

from rethinking import cli
from rethinking.experiments.reproduction import Reproduction
from rethinking.instrument.battery import all_options, asked_for
from rethinking.options import options_of, parse
from rethinking.sweeps.options import parse as parse_sweep
from tests import forked
from tests.conftest import ROOT, made_once

SHOWN = ("text", "toml", "yaml", "json", "bibtex")  # files and outputs, which nothing runs
NEEDY = ("make", "cd", "pre-commit", "pip", "uv", "git", "apt", "conda", "docker", "srun", "sbatch", "ray")  # never run
NEEDS = re.compile(r"<!-- needs: (.+?) -->")
SHELL_WORDS = ("do", "done", "then", "fi", "wait", "")


@dataclass(frozen=True)
class Block:
    """A fenced block. `place` is the document and the line of its fence, `needs` what its marker names."""

    place: str
    language: str
    text: str
    needs: str


def blocks(document: Path) -> list[Block]:
    """Every block, those in lists too. Raises `AssertionError` where a fence is in no block that was found."""
    source = document.read_text(encoding="utf-8")
    name = document.relative_to(ROOT) if document.is_relative_to(ROOT) else document.name
    found: list[Block] = []
    before = None
    tokens = MarkdownIt().parse(source)
    for token in tokens:
        if token.type in ("fence", "code_block") and token.map is not None:
            marker = NEEDS.fullmatch(before.content.strip()) if before and before.type == "html_block" else None
            place = f"{name}:{token.map[0] + 1}"
            found.append(Block(place, token.info.strip(), token.content, marker[1] if marker else ""))
        before = token
    fences = re.findall(r"^\s*(?:```|~~~)", source, flags=re.MULTILINE)
    fenced = [token for token in tokens if token.type == "fence"]
    assert len(fences) == 2 * len(fenced), f"{name}: a fence is in no block; is it indented below an admonition?"
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a shell block, without assignments, redirections and loops around them."""
    values: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if not re.fullmatch(r"[();<>|&]+", word):
                command.append(re.sub(r"\$\{?(\w+)\}?", lambda found: values.get(found[1], found[0]), word))
                continue
            while command and (command[0] in SHELL_WORDS or re.match(r"[A-Z_]+=", command[0])):
                del command[0]
            if command[:1] == ["for"]:
                values[command[1]] = command[3]
            elif command:
                yield command
            command = []


def check(words: list[str]) -> None:
    """Parses a command as it would be parsed if it ran. Raises an error that says what is wrong."""
    match words:
        case ["python", "train.py", *options] | ["rethinking", "train", *options]:
            cli.parse(options)
        case ["python", "reproduce.py", *options] | ["rethinking", "reproduce", *options]:
            Reproduction(**parse(options_of(Reproduction), "reproduce.py", "", options))
        case ["rethinking", "sweep", *options]:
            parse_sweep([word for word in options if word not in ("--config", "grid.yaml")])
        case ["rethinking", "test", *options]:
            values = parse(all_options(), "rethinking test", "", options)
            made = shlex.split(asked_for(values.pop("network"), values).command)
            assert sorted(made) == sorted(words), f"{words} is understood as {made}"
        case ["rethinking", ("keep" | "cache" | "demo" | "verify") as name, *options]:
            kinds = {"keep": cli.Keeping, "cache": cli.Caching, "demo": cli.NoOptions, "verify": cli.Verifying}
            kind = kinds[name]
            parse(options_of(kind), f"rethinking {name}", "", options)
        case ["python", "-m", module, *_]:
            assert importlib.util.find_spec(module) is not None, f"there is no module {module}"
        case ["python", script, *options] if script.startswith(("benchmarks/", "trials/")):
            with mock.patch.object(sys, "path", [str((ROOT / script).parent), *sys.path]):
                tyro.cli(importlib.import_module(Path(script).stem).Arguments, args=options)
        case ["make", *targets]:
            made = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
            assert set(targets) <= set(made), f"the Makefile lacks one of {targets}"
        case [name, *_]:
            assert Path(name).name in NEEDY, f"unknown command: {shlex.join(words)}"


class Commands(socketserver.UnixStreamServer):
    """Carries out `python FILE` and `rethinking` for shells, one after the other, in forked processes."""

    CLIENT = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect({address!r})
    connection.sendall(json.dumps([sys.argv, os.getcwd(), dict(os.environ)]).encode())
    connection.shutdown(socket.SHUT_WR)
    status, output, errors = json.loads(connection.makefile("rb").read())
sys.stdout.write(output)
sys.stderr.write(errors)
sys.exit(status)
"""

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder / "socket"), Request)
        self.failed: list[str] = []
        self.folder = folder
        for name in ("python", "rethinking"):
            client = folder / name
            client.write_text(self.CLIENT.format(python=sys.executable, address=self.server_address))
            client.chmod(0o755)

    def carry_out(self, words: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        if Path(words[0]).name == "rethinking":
            return forked.run(ROOT / "src/rethinking/__main__.py", *words[1:], cwd=folder, env=env)
        if words[1].endswith(".py"):
            script = folder / words[1]
            return forked.run(script if script.exists() else ROOT / words[1], *words[2:], cwd=folder, env=env)
        words = [sys.executable, *words[1:]]
        return subprocess.run(
            words, cwd=folder, env=env, capture_output=True, text=True, timeout=forked.LIMIT, check=False
        )


class Request(socketserver.StreamRequestHandler):
    server: Commands

    def handle(self) -> None:
        words, folder, env = json.loads(self.rfile.read())
        try:
            done = self.server.carry_out(words, Path(folder), env)
            answer = (done.returncode, done.stdout, done.stderr)
        except Exception as error:  # the client waits for an answer
            answer = (1, "", repr(error))
        if answer[0]:
            self.server.failed.append(f"{shlex.join(words)}: {answer[2]}")
        self.wfile.write(json.dumps(answer).encode())


@contextlib.contextmanager
def served() -> Iterator[Commands]:
    with tempfile.TemporaryDirectory() as folder, Commands(Path(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def run_shell(text: str, folder: Path, server: Commands) -> str:
    """What a block prints. Raises `AssertionError` where a command fails, one in the background too."""
    for words in commands(text):
        assert words[0] not in NEEDY, f"{words[0]} is not run here: put <!-- needs: ... --> before the block"
    env = {**os.environ, "PATH": f"{server.folder}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", text],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=forked.LIMIT,
        check=False,
    )
    assert done.returncode == 0, f"exit status {done.returncode}: {done.stdout}{done.stderr}"
    assert not server.failed, server.failed
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def run_python(block: Block, folder: Path, names: dict[str, Any]) -> str:
    """What a block prints; one that begins with `# name.py` is a file, which is written."""
    if file := re.match(r"# (\w+\.py)\n", block.text):
        (folder / file[1]).write_text(block.text, encoding="utf-8")
        return ""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(block.text, block.place, "exec"), names)
    return printed.getvalue()


def follow_block(block: Block, folder: Path, names: dict[str, Any], server: Commands) -> str:
    assert block.language in ("python", "bash", *SHOWN), f"unknown language '{block.language}'"
    if block.language in SHOWN:
        return ""
    if block.language == "python":
        if block.needs:
            compile(block.text, block.place, "exec")
            return ""
        return run_python(block, folder, names)
    if not block.needs:
        return run_shell(block.text, folder, server)
    for words in commands(block.text):
        check(words)
    return ""


def follow(document: Path, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Runs all blocks of a document in `folder`; a block that needs what is not here is only parsed.

    The cache of images is `.cache` there, so that a copy of the folder has what its runs were trained on.
    Returns the names that its Python left, and what each block printed. An error has the block's place as a note.
    """
    names: dict[str, Any] = {}
    printed = []
    path, modules = [*sys.path], {*sys.modules}
    sys.path.insert(0, str(folder))
    try:
        with served() as server, mock.patch.dict(os.environ, RETHINKING_CACHE=str(folder / ".cache")):
            for block in blocks(document):
                try:
                    printed.append(follow_block(block, folder, names, server))
                except (Exception, SystemExit) as error:
                    error.add_note(f"in the block at {block.place}")
                    raise
    finally:
        sys.path[:] = path
        for name in sys.modules.keys() - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and Path(file).parent == folder:
                del sys.modules[name]
    return names, printed


def followed_once(factory: pytest.TempPathFactory, document: Path) -> tuple[Path, list[str]]:
    """A copy of the folder in which one of the test processes followed the document, and what each block printed."""
    name = str(document.relative_to(ROOT).with_suffix("")).replace("/", "-")
    folder, printed = made_once(factory, name, lambda folder: json.dumps(follow(document, folder)[1]))
    return folder, json.loads(printed)
