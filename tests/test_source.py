"""The text of a user's own code."""

import gc
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rethinking import config
from rethinking.source import local_files


@pytest.fixture
def switching_threads() -> Iterator[None]:
    """Lets another thread go on at each of many garbage collections, in the middle of a parse too."""

    def switch(phase: str, info: dict[str, Any]) -> None:
        time.sleep(0.0001)

    threshold = gc.get_threshold()
    gc.callbacks.append(switch)
    gc.set_threshold(1000)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(switch)


@pytest.mark.usefixtures("switching_threads")
def test_threads_read_source_at_once():
    """Runs side by side each read their network's source; Python 3.11 fails where two threads parse at once."""
    file = Path(config.__file__)
    with ThreadPoolExecutor(4) as threads:
        (expected, *others) = threads.map(local_files, [file] * 4)
    assert all(other == expected for other in others)
    assert file in expected
