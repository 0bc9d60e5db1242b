"""What the documents say is what the code does and the results hold."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from rethinking import cli
from rethinking.config import MODEL_DEFAULTS, ExperimentConfig
from rethinking.experiments.paper import read_table
from rethinking.report.documents import TABLES, with_tables
from tests.conftest import ROOT
from tests.test_commands import COMMANDS

README = (ROOT / "README.md").read_text()


def test_every_table_of_measurements_in_the_readme_comes_from_results():
    assert set(re.findall(r"<!-- results: (\w+) -->", README)) == set(TABLES)
    assert with_tables(README, ROOT / "results") == README, "run `make docs`"


def test_the_readme_shows_every_command_line_of_the_brief():
    for command in COMMANDS:
        assert command in README.splitlines()


@pytest.mark.parametrize("command", re.findall(r"^python train\.py (.+)$", README, flags=re.MULTILINE))
def test_every_training_command_in_the_readme_is_understood(command):
    if command.startswith("--help"):
        pytest.skip("prints and exits; tested with the command line")
    config, _ = cli.parse(command.split())
    assert isinstance(config, ExperimentConfig)


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (code,) = re.findall(r"```python\n(.+?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "mlp_1x512-digits-random_labels-seed0" in capsys.readouterr().out


def test_the_readmes_models_are_table_1s():
    for model, defaults in MODEL_DEFAULTS.items():
        (count,) = {int(row["parameters"]) for row in read_table("table1") if row["model"] == model}
        assert f"| `{model}` | {count:,} | {defaults.weight_decay:g} | {defaults.learning_rate:g} |" in README


def test_every_path_the_readme_names_exists():
    for path in re.findall(r"`((?:src|tests|benchmarks|results)/[\w./]*)`", README):
        assert (ROOT / path).exists(), path


def test_requirements_pin_what_pyproject_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(need for extra in project["optional-dependencies"].values() for need in extra)]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = {line.split("==")[0].lower() for line in lines if "==" in line}
    assert pinned == {re.split(r"[><=]", need)[0].lower() for need in asked}
    assert "torch==2.13.0" in lines
    assert "-e ." in lines


def test_the_citation_file_and_the_changelog_know_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## {version} " in (ROOT / "CHANGELOG.md").read_text()
