"""What holds for every change is checked in the same way by `make test`, the hooks and the workflow."""

import re
import subprocess
import sys

import pytest
import yaml

from tests.conftest import ROOT

HANGING = 1200  # seconds


def commands_of(target: str) -> list[str]:
    """The commands of a target of the Makefile, without those of the targets it needs."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    assert recipe is not None, target
    return [line.strip().replace("$(RUN)", ".venv/bin/python") for line in recipe[1].splitlines()]


def test_the_hooks_run_what_make_test_runs():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    hooks = {hook["entry"]: hook.get("stages", ["pre-commit"]) for hook in repository["hooks"]}
    assert [entry for entry, stages in hooks.items() if stages == ["pre-commit"]] == commands_of("check")
    assert [entry for entry, stages in hooks.items() if stages == ["pre-push"]] == commands_of("test")


def test_the_hooks_are_valid():
    words = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / ".pre-commit-config.yaml")]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=HANGING, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_workflow_runs_the_script_of_a_clean_checkout():
    (workflow,) = (ROOT / ".github" / "workflows").iterdir()
    job = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().endswith("make test")


@pytest.mark.parametrize(
    "code",
    [
        '"""A module."""\n\n\ndef public(x: int) -> int:\n    return x\n',
        '"""A module."""\n\n\nclass Public:\n    x = 1\n',
        '"""A module."""\n\n\nclass Public:\n    """A class."""\n\n    def method(self) -> int:\n        return 1\n',
        "x = 1\n",
    ],
    ids=["function", "class", "method", "module"],
)
def test_a_public_name_of_the_package_without_a_docstring_is_refused(code: str):
    words = [sys.executable, "-m", "ruff", "check", "--quiet", "--stdin-filename", "src/rethinking/new.py", "-"]
    ran = subprocess.run(words, cwd=ROOT, input=code, capture_output=True, text=True, timeout=HANGING, check=False)
    assert ran.returncode == 1
    assert "D10" in ran.stdout
