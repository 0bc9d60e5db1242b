"""A process that is timed beside others, with one network at work."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any


class Side:
    """Runs a process that prints facts in a line of JSON, then the seconds for each `epoch` or `evaluate`.

    facts: what the process printed, without the number of images of an epoch
    """

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )
        self.facts = self._answer()
        self._images = self.facts.pop("images")

    @property
    def machine(self) -> dict[str, Any]:
        """The columns of `workload.Machine.columns` in that process."""
        return {name: self.facts[name] for name in ("precision", "threads", "hardware", "torch")}

    def images_per_second(self, what: str, least: float = 0.0) -> float:
        """Times epochs or evaluations that last at least `least` seconds together, and returns their mean speed."""
        assert self._process.stdin is not None
        print(f"{what} {least}", file=self._process.stdin, flush=True)
        return float(self._images / self._answer()["seconds"])

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.end()
            raise SystemExit("a process ended early; its messages stand above")
        answer: dict[str, Any] = json.loads(line)
        return answer
