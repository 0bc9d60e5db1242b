"""The wheel that a user installs: built, installed in a fresh environment outside the repository, and tried there."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import HeaderParser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.conftest import ROOT, made_once

HANGING = 1200  # seconds
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PACKAGE = ROOT / "src" / "rethinking"
OPTIONAL = {"wandb", "ray", "pandas", "ipython"}  # wandb and ray are extras; the others are there in a notebook


def run(*words: str | Path, cwd: Path) -> str:
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    ran = subprocess.run(words, cwd=cwd, env=own, capture_output=True, text=True, timeout=HANGING, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def install(folder: Path) -> str:
    """Build source distribution and wheel from a copy of the sources; install the wheel in a new environment.

    What the package depends on comes from this environment, so that nothing is downloaded. The package does not: only
    the folder of libraries is added, and the editable installation is no folder there.
    """
    source = folder / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        source.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, source)
    shutil.copytree(PACKAGE, source / "src" / "rethinking", ignore=shutil.ignore_patterns("__pycache__"))
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", source, cwd=folder)
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    python = folder / "env" / "bin" / "python"
    install_wheel = ("install", "--quiet", "--no-index", "--no-deps", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *install_wheel, cwd=folder)
    (libraries,) = (folder / "env" / "lib").glob("python*/site-packages")
    (libraries / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n", encoding="utf-8")
    return wheel.name


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `dist/` and the environment `env/`."""
    return made_once(tmp_path_factory, "wheel", install)[0]


@pytest.fixture(scope="module")
def wheel(installed: Path) -> zipfile.ZipFile:
    (path,) = (installed / "dist").glob("*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile):
    own = {path.relative_to(ROOT / "src").as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    own = {name for name in own if "__pycache__" not in name}
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == own
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile):
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    said = HeaderParser().parsestr(wheel.read(name).decode())
    assert (said["Name"], said["Version"]) == (PROJECT["name"], PROJECT["version"])
    assert said["Description-Content-Type"] == "text/markdown"
    assert said.get_payload().startswith("# rethinking"), "the README is the page of the package index"
    assert dict(line.split(", ") for line in said.get_all("Project-URL")) == PROJECT["urls"]
    needed = [line for line in said.get_all("Requires-Dist") if "extra ==" not in line]
    assert sorted(needed) == sorted(PROJECT["dependencies"])


def test_the_installed_package_trains_tests_and_reports(installed: Path, tmp_path: Path):
    command = installed / "env" / "bin" / "rethinking"
    python = installed / "env" / "bin" / "python"
    where = run(python, "-c", "import rethinking; print(rethinking.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed / "env"), "the wheel's own, not the repository's"
    assert run(command, "--version", cwd=tmp_path).strip() == f"rethinking {PROJECT['version']}"
    net = "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    (tmp_path / "net.py").write_text(net, encoding="utf-8")
    tested = ("net:net", "--dataset", "digits", "--epochs", "1", "--lr", "0.01", "--out", "tested")
    assert "random labels" in run(command, "test", *tested, cwd=tmp_path)
    assert "<title>" in (tmp_path / "tested" / "report.html").read_text(encoding="utf-8")
    listed = run(command, "reproduce", "all", "--scale", "demo", "--models", "mlp_1x512", "--dry_run", cwd=tmp_path)
    assert "mlp_1x512" in listed


def test_every_library_that_the_package_imports_is_a_dependency():
    distributions = packages_distributions()
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            imported |= {name.partition(".")[0] for name in names}
    others = imported - set(sys.stdlib_module_names) - {"rethinking"}
    needed = {distributions[name][0].lower().replace("_", "-") for name in others} - OPTIONAL
    declared = {need.partition(">=")[0].lower() for need in PROJECT["dependencies"]}
    assert needed <= declared
    assert declared - needed == {"tensorboard"}, "torch.utils.tensorboard imports it"
