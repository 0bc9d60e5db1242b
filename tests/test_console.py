"""The terminal during a run."""

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from rethinking.config import ExperimentConfig
from rethinking.progress import Progress, Shortened, StepsInWords, Watched


@pytest.mark.parametrize("height", [6, 12, 20])
def test_a_table_too_tall_for_the_terminal_keeps_its_heading_and_its_last_rows(height):
    seen = under_the_live_line(20, height)
    assert len(seen) == height - 1
    assert seen[0].strip() == "title"
    assert seen.count("⋮") == 1
    last_rows = [line.strip() for line in seen[seen.index("⋮") + 1 :]]
    assert last_rows == [f"row {row}" for row in range(20)][-len(last_rows) :]
    assert len(last_rows) >= height // 2


def test_a_table_that_fits_is_shown_whole():
    seen = under_the_live_line(20, 40)
    assert [line.strip() for line in seen if "row" in line] == [f"row {row}" for row in range(20)]
    assert "⋮" not in seen


def under_the_live_line(rows: int, height: int) -> list[str]:
    table = Table("", title="title", box=None, show_header=False)
    for row in range(rows):
        table.add_row(f"row {row}")
    console = Console(width=40, height=height)
    with console.capture() as captured:
        console.print(Shortened(table))
    return captured.get().splitlines()


def test_several_runs_share_one_live_line(tmp_path: Path):
    """The line shows the run with the most remaining work, and the number of runs."""
    console = Console(width=120, force_terminal=True, file=io.StringIO())
    progress = Progress(console)
    short, long = (progress.observers()[0] for _ in range(2))
    for run, epochs in ((short, 3), (long, 10)):
        config = ExperimentConfig(model_name="mlp_1x512", dataset="digits", num_epochs=epochs, device="cpu")
        run.started(tmp_path / f"of-{epochs}-epochs", config, [], 100)
    for run in (short, long):
        run.step(50)
    assert re.match(r"2 runs at once  epoch 1/10 50%  \d+s left", progress._line().plain)
    short.ended(None)
    assert progress._line().plain.startswith("epoch 1/10 50%")
    long.ended(None)
    assert console.file.getvalue().count("\x1b[?25l") == console.file.getvalue().count("\x1b[?25h") == 1


def test_without_a_terminal_the_lines_of_several_runs_name_their_runs(tmp_path: Path):
    console = Console(width=200, file=io.StringIO())
    progress = Progress(console)
    runs = [progress.observers()[0] for _ in range(2)]
    config = ExperimentConfig(model_name="mlp_1x512", dataset="digits", num_epochs=3, device="cpu")
    for number, run in enumerate(runs):
        run.started(tmp_path / f"run{number}", config, [], 100)
        run.step(100)
    record = {
        "epoch": 1,
        "train_loss": 1.0,
        "train_accuracy": 0.5,
        "exact_train_accuracy": None,
        "test_accuracy": None,
        "images_per_second": 10.0,
    }
    runs[1].epoch(record)
    runs[0].ended(None)
    runs[1].epoch(record | {"epoch": 2})
    lines = console.file.getvalue().splitlines()
    assert lines[-2].startswith("run1  epoch 1/3  ")
    assert lines[-1].startswith("epoch 2/3  ")


def test_the_time_left_is_within_the_seconds_that_training_has(monkeypatch: pytest.MonkeyPatch):
    """A tenth of the epochs took a second. Nine seconds are expected for the rest, and two are left of three."""
    clock = iter([0.0, 1.0, 1.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    watched = Watched(Progress(Console(file=io.StringIO())))
    watched.started(Path("runs/a"), ExperimentConfig(num_epochs=10), [], 100)
    watched.step(100)
    assert watched.left_and_measured() == ["9s left"]
    watched.seconds = 3.0
    assert watched.left_and_measured() == ["at most 2s left"]


def test_a_step_of_a_kernel_machine_says_how_long_is_left(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("rethinking.progress.time.perf_counter", lambda: clock[0])
    written = io.StringIO()
    steps = StepsInWords(Console(file=written, width=100))
    advanced = steps.of("mnist, pixels")("factorizing")
    for seconds, share in ((10.0, 0.1), (40.0, 0.25), (50.0, 0.5), (90.0, 0.75)):
        clock[0] = seconds
        advanced(share)
    steps.close()
    assert written.getvalue().splitlines() == [
        "mnist, pixels: factorizing 25%  2m 00s left",
        "mnist, pixels: factorizing 75%  30s left",
    ]


def test_the_live_line_of_a_kernel_machine_is_removed_before_the_next():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    steps = StepsInWords(console)
    for name in ("first", "second"):
        steps.of(name)("factorizing")(0.5)
        assert len(console._live_stack) == 1
    steps.close()
    assert not console._live_stack
