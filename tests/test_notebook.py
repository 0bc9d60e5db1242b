"""Displays in an executed notebook, and the silence of a script."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

import rethinking
from rethinking import ExperimentConfig, InputError, RunError, notebook, train
from rethinking.progress import Watched
from rethinking.report import tables
from tests.conftest import made_once, reproduce

CELLS = {
    "kind": "from rethinking.notebook import in_notebook\nprint(in_notebook())",
    "train": """
import rethinking
from rethinking import ExperimentConfig, train, train_many
result = train(ExperimentConfig(model_name="mlp_1x512", dataset="digits", num_epochs=30, use_tensorboard=False))
""",
    "again": "train(result.config);",
    "result": "result",
    "frame": "print(result.frame().shape)",
    "plot": "result.plot()",
    "kept plot": "picture = result.plot()",
    "plot beside pyplot": "import matplotlib.pyplot\nresult.plot()",
    "train_many": """
from dataclasses import replace
several = [replace(result.config, num_epochs=3, seed=seed) for seed in (1, 2, 3)]
outcomes = list(train_many(several, at_once=3, stacked=False))
""",
    "silent": "list(train_many([replace(result.config, seed=4)], progress=False));",
    "failed": """
import numpy as np
class Stopping:
    def __getattr__(self, name):
        def told(*_):
            if name == "epoch":
                raise KeyboardInterrupt
        return told
try:
    train(replace(result.config, seed=5), observers=[Stopping()])
except KeyboardInterrupt:
    pass
""",
    "reproduce": "made = rethinking.reproduce('table4', scale='demo', models='mlp_1x512')",
    "tables": "made",
    "theory": "rethinking.reproduce('table3', scale='demo', filters=25);",
}


@pytest.fixture(scope="session")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The outputs of each cell of `CELLS`, executed in order."""

    def execute(folder: Path) -> str:
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS.values()])
        client = NotebookClient(
            made, timeout=1200, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        client.execute(env={**__import__("os").environ, "RETHINKING_CACHE": str(folder / "cache")})
        return str(nbformat.writes(made))

    _, written = made_once(tmp_path_factory, "notebook", execute)
    executed = nbformat.reads(written, as_version=4)
    return {name: cell.outputs for name, cell in zip(CELLS, executed.cells, strict=True)}


def shown(outputs: list[Any]) -> list[str]:
    """Returns the lines of the single display of a cell."""
    (output,) = outputs
    assert output.output_type == "display_data"
    lines = re.findall(r"<div>(.*?)</div>", output.data["text/html"])
    assert len(lines) == len(output.data["text/plain"].splitlines())
    return lines


def test_a_run_has_one_display_that_ends_as_one_line(outputs):
    assert outputs["kind"][0].text == "True\n"
    decoding, run = shown(outputs["train"])
    assert decoding == "decoding 1,797 images into the cache, once"
    assert re.match(r"mlp_1x512-digits-none-seed0-\w{10}  epoch 30/30 in \d+s  loss 0\.\d+  train \d\d\.\d\d%", run)
    assert "<progress" not in run
    assert outputs["again"] == outputs["silent"] == []


def test_several_runs_share_one_display(outputs):
    lines = shown(outputs["train_many"])
    assert sorted(re.findall(r"seed(\d)", " ".join(lines))) == ["1", "2", "3"]
    assert all("  epoch 3/3 in " in line for line in lines)


def test_an_interrupted_run_says_so(outputs):
    (line,) = shown(outputs["failed"])
    assert line.endswith(("stopped in its first epoch", "stopped after epoch 1/30"))


def test_a_result_is_a_small_table(outputs):
    (output,) = outputs["result"]
    assert "<td>network</td><td>mlp_1x512</td>" in output.data["text/html"]
    assert len(output.data["text/html"]) < 1000
    assert outputs["frame"][0].text == "(30, 10)\n"


def test_a_figure_is_shown_once_with_and_without_pyplot(outputs):
    for name in ("plot", "plot beside pyplot"):
        (output,) = outputs[name]
        assert output.data["image/png"]
    assert outputs["kept plot"] == []


def test_a_reproduction_shows_its_runs_and_then_its_table(outputs):
    assert len(shown(outputs["reproduce"])) == 1
    (output,) = outputs["tables"]
    assert "<td>mlp_1x512</td><td>weight_decay</td>" in output.data["text/html"]
    assert output.data["text/plain"] == "Reproduced(table4; in reproduced/digits-demo)"
    finished = shown(outputs["theory"])
    assert sum(line.startswith("finished: digits, ") for line in finished) == 4
    assert not [line for line in finished if "<progress" in line]


def test_a_notebook_stays_small(outputs):
    text = [output for name, found in outputs.items() if "plot" not in name for output in found]
    assert len(str(text)) < 20_000


class Kernel:
    """An IPython shell like that of a kernel, which remembers what was displayed."""

    def __init__(self) -> None:
        self.displayed: list[dict[str, str]] = []
        self.updates = 0

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> Kernel:
        assert raw
        assert display_id
        self.displayed.append(content)
        return self

    def update(self, content: dict[str, str], *, raw: bool) -> None:
        self.displayed[-1] = content
        self.updates += 1


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made, package, inner = Kernel(), ModuleType("IPython"), ModuleType("IPython.display")
    package.get_ipython = lambda: SimpleNamespace(kernel=made)  # type: ignore[attr-defined]
    inner.display = made.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", inner)
    return made


class Clock:
    """A clock that advances on command, with its timers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        monkeypatch.setattr(notebook.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(notebook.threading, "Timer", self.timer)

    def timer(self, seconds: float, function: Callable[[], None]) -> SimpleNamespace:
        at = self.now + seconds

        def cancel() -> None:
            self.timers = [timer for timer in self.timers if timer[0] != at]

        return SimpleNamespace(daemon=False, start=lambda: self.timers.append((at, function)), cancel=cancel)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        due = [timer for timer in self.timers if timer[0] <= self.now]
        self.timers = [timer for timer in self.timers if timer not in due]
        for _, function in due:
            function()


def begin(progress: notebook.NotebookProgress, name: str) -> Watched:
    (run,) = progress.observers()
    assert isinstance(run, Watched)
    run.started(Path(name), ExperimentConfig(model_name="mlp_1x512", dataset="digits", num_epochs=10), [], 1000)
    return run


def test_a_display_is_updated_a_few_times_a_second_at_most(kernel: Kernel, monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    progress = notebook.NotebookProgress()
    runs = [begin(progress, f"run{place}") for place in range(3)]
    for _ in range(1000):
        clock.sleep(0.01)
        for run in runs:
            run.step(5)
    clock.sleep(notebook.INTERVAL)
    runs[0].step(1)
    assert 20 <= kernel.updates <= 10 / notebook.INTERVAL + 1
    assert len(kernel.displayed) == 1
    assert kernel.displayed[0]["text/html"].count("<progress") == 3
    lines = kernel.displayed[0]["text/plain"].splitlines()
    assert [line[:16] for line in lines] == [f"run{place}  epoch 6/10" for place in range(3)]


def test_an_early_update_is_shown_a_little_later(kernel: Kernel, monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    progress = notebook.NotebookProgress()
    progress.say("first")
    progress.say("second")
    assert kernel.displayed[0]["text/plain"] == "first"
    clock.sleep(notebook.INTERVAL)
    assert kernel.displayed[0]["text/plain"] == "first\nsecond"
    assert kernel.updates == 1


def test_markup_in_a_name_is_text(kernel: Kernel):
    progress = notebook.NotebookProgress()
    begin(progress, "<b>run").ended(None)
    progress.say("<script>")
    progress.close()
    html = kernel.displayed[0]["text/html"]
    assert "&lt;b&gt;run  stopped in its first epoch" in html
    assert "&lt;script&gt;" in html
    assert "<b>" not in html
    made = notebook.table(["<a>"], [["<b>"]], "<c>", "<d>")
    assert [part for part in re.findall(r"<(\w+)>", made) if len(part) == 1 and part != "p"] == []


def test_a_step_of_theory_is_shown_while_it_goes(kernel: Kernel, monkeypatch: pytest.MonkeyPatch):
    clock = Clock(monkeypatch)
    progress = notebook.NotebookProgress()
    advanced = progress.steps("digits, pixels")("factorizing")
    clock.sleep(1)
    advanced(0.25)
    assert 'value="0.250"' in kernel.displayed[0]["text/html"]
    assert kernel.displayed[0]["text/plain"] == "digits, pixels  factorizing"
    progress.close()
    assert kernel.displayed[0]["text/plain"] == ""


def test_log_lines_are_shown_once_each(kernel: Kernel, monkeypatch: pytest.MonkeyPatch):
    log = logging.getLogger("rethinking.data.sources")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logging.getLogger("rethinking"), "handlers", [])
    monkeypatch.setattr(logging.getLogger("rethinking"), "level", logging.NOTSET)
    for _ in range(2):
        with notebook.shown(None), notebook.shown(None):
            log.info("decoding")
    assert [content["text/plain"] for content in kernel.displayed] == ["decoding", "decoding"], "one in each cell"
    assert logging.getLogger("rethinking").handlers == []
    assert logging.getLogger("rethinking").level == logging.NOTSET
    theirs: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: theirs.append(record.getMessage())  # type: ignore[method-assign]
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    with notebook.shown(None):
        log.info("decoding")
    assert theirs == ["decoding"]
    assert len(kernel.displayed) == 2, "somebody else shows it"


OPTIONS: dict[str, Any] = {"model_name": "mlp_1x512", "dataset": "digits", "num_epochs": 2, "use_tensorboard": False}


def test_a_script_is_silent_unless_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    assert not notebook.in_notebook()
    config = ExperimentConfig(**OPTIONS, runs_dir=str(tmp_path))
    train(config)
    assert capfd.readouterr() == ("", "")
    train(config, force=True, progress=True)
    assert "epoch 2/2" in capfd.readouterr().out


def test_ipython_on_a_terminal_is_no_notebook(tmp_path: Path):
    code = "from rethinking.notebook import in_notebook; print(get_ipython() is not None, in_notebook())"
    words = [sys.executable, "-m", "IPython", "--no-banner", "-c", code]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=1200)
    assert done.stdout.split() == ["True", "False"]


def test_the_package_starts_without_the_packages_of_a_notebook():
    late = {"torch", "matplotlib", "pandas", "IPython", "rich"}
    code = f"import sys, rethinking, rethinking.notebook; print({late} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=1200)
    assert done.stdout.strip() == "set()"


def test_a_results_text_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    config = ExperimentConfig(**OPTIONS, runs_dir=str(tmp_path), randomization="partial_corrupt", corruption_prob=0.5)
    result = train(config)
    final = result.final
    assert repr(result) == (
        "RunResult(network: mlp_1x512, data: digits, randomization: partial_corrupt (0.5), epochs: 2,"
        f" training accuracy: {final['exact_train_accuracy']:.2%}, test accuracy: {final['test_accuracy']:.2%})"
    )
    assert result == train(config), "and equality is by content"
    frame = result.frame()
    assert list(frame["epoch"]) == [1, 2]
    assert frame["train_loss"].tolist() == [record["train_loss"] for record in result.metrics]
    loss, accuracy = result.plot().axes
    assert list(loss.lines[0].get_ydata()) == frame["train_loss"].tolist()
    assert list(accuracy.lines[1].get_ydata()) == frame["test_accuracy"].tolist()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        result.frame()


def test_python_reproduces_what_the_command_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    made = rethinking.reproduce("table4", scale="demo", models=["mlp_1x512"], out=Path("python"), at_once=1)
    assert capfd.readouterr() == ("", "")
    assert list(made) == ["table4"]
    assert made.folder == Path("python")
    written = {path.name for path in made.folder.iterdir()}
    asked = ("table4", "--scale", "demo", "--models", "mlp_1x512")
    printed = reproduce(tmp_path, *asked, "--out", "command")
    assert "epoch" not in printed.split("Table 4")[0], "its run was found"
    assert {path.name for path in (tmp_path / "command").iterdir()} == written
    for name in ("table4.csv", "table4.md", "runs.csv"):
        assert (tmp_path / "command" / name).read_bytes() == (made.folder / name).read_bytes()
    (cell,) = made["table4"].cells
    (read,) = tables.read_csv(made.folder / "table4.csv")[0]
    assert (cell.labels, cell.runs) == (read.labels, read.runs)
    frame = made["table4"].frame()
    assert frame["ours"].tolist() == [cell.ours]
    assert not {"paper", "difference"} & {*frame.columns}, "the digits are not the paper's"
    assert repr(made["table4"]) == "Table(Table 4: fitting random labels with explicit regularization; cells: 1)"
    assert "99.21%" not in made._repr_html_()


def test_a_table_has_the_papers_number_beside_its_own_images(
    real_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    options = {"dataset": "cifar10", "data_root": real_root, "scale": "demo", "models": "mlp_1x512"}
    (table,) = rethinking.reproduce("table4", **options).values()
    assert table.frame()["paper"].tolist() == [0.9921]
    assert "<td>99.21%</td>" in table._repr_html_()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"experiment": "tabel1"}, "did you mean 'table1'"),
        ({"experiment": "table1", "modles": "mlp_1x512"}, "unknown option 'modles'; did you mean 'models'"),
        ({"experiment": "table1", "seeds": ["a"]}, "--seeds takes SEED"),
        ({"experiment": "table1", "show_only": "yes"}, "show_only takes True or False, not 'yes'"),
        ({"experiment": "table1", "scale": "dmo"}, "did you mean 'demo'"),
        ({"experiment": "table1", "models": None}, "None"),
    ],
)
def test_a_mistake_is_a_one_line_error(
    options: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said) as raised:
        rethinking.reproduce(**options)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_failed_runs_are_reported_after_the_results_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RunError, match="1 of the runs failed"):
        rethinking.reproduce("table4", scale="demo", models="mlp_1x512", runs_dir="taken/runs")
    shown_only = rethinking.reproduce("table4", scale="demo", models="mlp_1x512", show_only=True)
    assert dict(shown_only) == {}
    assert repr(shown_only) == "Reproduced(no run so far; in reproduced/digits-demo)"


def test_a_dry_run_prints_its_list_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    made = rethinking.reproduce("table4", scale="demo", models="mlp_1x512", dry_run=True)
    assert "left in all on this machine" in capfd.readouterr().out
    assert len(made) == 0
    assert list(tmp_path.iterdir()) == []
