"""Fixtures of all tests: a separate home folder, and small real data sets."""

from __future__ import annotations

import functools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

from tests import forked

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

if "PYTEST_XDIST_WORKER" in os.environ:  # several test processes: one thread each, set before PyTorch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as below `nohup`, and so would all that the tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)
set_hypothesis_home_dir(tempfile.mkdtemp(prefix="hypothesis-"))  # else it writes into the repository
settings.register_profile("shared", deadline=None)  # how long an example takes says nothing beside other tests
settings.load_profile("shared")

ROOT = Path(__file__).parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"

DEMO = ("--scale", "demo", "--models", "mlp_1x512")
OUT = Path("reproduced/digits-demo")  # where that goes

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def isolated_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Puts caches, configuration and credentials of every library into a temporary folder, in subprocesses too."""
    home = tmp_path_factory.mktemp("home")
    saved = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("WANDB_", "HF_", "XDG_", "RETHINKING_"))]:
        del os.environ[name]
    os.environ |= {"HOME": str(home), "RETHINKING_CACHE": str(home / "cache"), "COLUMNS": "100"}
    yield home
    os.environ.clear()
    os.environ.update(saved)


@pytest.fixture
def train_command(tmp_path: Path) -> Command:
    """Runs `python train.py ...` in an empty folder; keyword arguments go to `forked.run`."""
    return functools.partial(forked.run, ROOT / "train.py", cwd=tmp_path)


def on_a_terminal(folder: Path, *arguments: str) -> str:
    """Runs a Python command in `folder` on a pseudo-terminal, and returns everything that it wrote."""
    primary, secondary = os.openpty()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        stdout=secondary,
        stderr=secondary,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(secondary)
    seen = b""
    while select.select([primary], [], [], 1200)[0]:
        try:
            seen += os.read(primary, 65536)
        except OSError:  # the other end was closed
            break
    else:
        process.kill()
    os.close(primary)
    assert process.wait(1200) == 0, seen.decode()
    return seen.decode()


def few_digits(count: int, tested: int = 20) -> str:
    """Puts the first of the digits into the cache, with a few test images, for networks that are slow at testing."""
    from rethinking.data import sources

    digits = sources.load("digits")
    assert digits.test is not None
    parts = [(part.images[:size], part.labels[:size]) for part, size in ((digits.train, count), (digits.test, tested))]
    return sources.adopt(*parts)


def shared(name: str) -> Path:
    """Returns the folder of a full real data set; skips the test where there is none."""
    if not (SHARED_DATA / name).is_dir():
        pytest.skip(f"real data is absent: no folder {name} in ../shared/data")
    return SHARED_DATA / name


@pytest.fixture(scope="session")
def real_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `--data_root` with the first images of CIFAR-10 and of MNIST in `cifar10` and `mnist`: 300 + 100."""
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("real")
    for name in ("cifar10", "mnist"):
        (root / name).mkdir()
        for split, rows in (("train", 300), ("test", 100)):
            source = min(shared(name).glob(f"{split}*.parquet"))
            table = pq.ParquetFile(source).read_row_group(0).slice(0, rows)
            pq.write_table(table, root / name / f"{split}.parquet")
    return root


def reproduce(folder: Path, *arguments: str, status: int = 0, env: Mapping[str, str] | None = None) -> str:
    done = forked.run(ROOT / "reproduce.py", *arguments, cwd=folder, env=env)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], str]) -> tuple[Path, str]:
    """Returns a copy of the folder that `make` fills, and the text of `make`; one test process makes it for all."""
    base = factory.getbasetemp()
    common = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    made, text = common / name, common / f"{name}.txt"
    with FileLock(common / f"{name}.lock"):
        if not text.exists():
            shutil.rmtree(made, ignore_errors=True)  # what a failed attempt left
            made.mkdir()
            text.write_text(make(made), encoding="utf-8")
    return shutil.copytree(made, factory.mktemp(name) / "copy"), text.read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which `reproduce all` ran at demo scale, and what it printed."""
    return made_once(tmp_path_factory, "reproduction", lambda folder: reproduce(folder, "all", *DEMO))


@pytest.fixture(scope="session")
def solved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which the kernel machines were solved, and what the commands printed."""

    def solve(folder: Path) -> str:
        printed = reproduce(folder, "table3", "--scale", "demo", "--filters", "25", "400")
        return printed + reproduce(folder, "minimum_norm", "--scale", "demo")

    return made_once(tmp_path_factory, "solutions", solve)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    if executable is None:
        if os.environ.get("CI"):
            pytest.fail("CI has no chromium; .ci/run installs it")
        pytest.skip("no chromium on this machine: install it (apt install chromium) to test report.html")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield opened
        opened.close()


def violations(page: Page) -> list[dict[str, Any]]:
    """Returns the rules of accessibility that a page breaks. To list the others would double axe's time."""
    from axe_playwright_python.sync_playwright import Axe

    return list(Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"])
