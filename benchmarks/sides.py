"""Processes that are timed in turn, each of which has one network at work."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any


class Side:
    """A process that says in one line of JSON what it is, then answers each `epoch` or `evaluate` with its seconds.

    facts: what it said, but for `images`, how many an epoch has
    """

    def __init__(self, command: Sequence[str], **environment: str) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )
        self.facts = self._answer()
        self._images = self.facts.pop("images")

    @property
    def machine(self) -> dict[str, Any]:
        """What `workload.Machine.columns` said there."""
        return {name: self.facts[name] for name in ("precision", "threads", "hardware", "torch")}

    def images_per_second(self, what: str, least: float = 0.0) -> float:
        """The mean over epochs or evaluations that last `least` seconds in all."""
        assert self._process.stdin is not None
        print(f"{what} {least}", file=self._process.stdin, flush=True)
        return float(self._images / self._answer()["seconds"])

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.end()
            raise SystemExit("one side ended; what it wrote stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer
