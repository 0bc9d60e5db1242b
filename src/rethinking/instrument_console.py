"""Shows a randomization test on the terminal: data, choices, expected time, table and verdict."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from rich.console import Console

from rethinking.instrument.battery import RandomizationTest
from rethinking.instrument.run import carry_out, estimate, prepare
from rethinking.progress import Progress, StepsInWords, say
from rethinking.report import tables
from rethinking.training.networks import cut, network_notes
from rethinking.training.preparation import resolve


class InstrumentConsole:
    """A randomization test with its output on a terminal."""

    def __init__(self, test: RandomizationTest, console: Console) -> None:
        self._test = test
        self._console = console

    def run(self) -> None:
        """Trains the missing runs, prints the verdict and writes the report. Raises what `carry_out` raises."""
        with contextlib.closing(StepsInWords(self._console)) as steps:
            prepared = prepare(self._test, steps.of(self._test.network))
        data, resolved = prepared.data, resolve(prepared.config, prepared.data)
        self._say(*data.described(), *cut(prepared.config, data), *network_notes(resolved, data), *prepared.choices)
        self._say(*estimate(prepared))
        with contextlib.closing(StepsInWords(self._console)) as steps:
            report = carry_out(prepared, Progress(self._console).observers, steps.of(self._test.network))
        if report.cells:
            self._console.print()
            self._console.print(tables.Terminal(report.experiment.title, report.grid, ""))
        for finding in report.findings:
            self._console.print(f"- {finding.sentence}", highlight=False, markup=False)
            if finding.command:
                self._say(f"  next: {finding.command}")
        page = report.save(self._folder(prepared.config.name, data.name))
        self._say(f"written to {page.parent}; open {page}")

    def _folder(self, network: str, data: str) -> Path:
        """Returns `--out`, or a folder of this question alone: a hash of the changed options is part of its name."""
        if self._test.out:
            return Path(self._test.out)
        changed = self._test.question
        suffix = f"-{hashlib.sha256(changed.encode()).hexdigest()[:6]}" if changed else ""
        return Path("tested") / f"{network}-{data}{suffix}"

    def _say(self, *lines: str) -> None:
        say(self._console, lines)
