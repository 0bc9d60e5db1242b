"""What a person sees of a randomization test: data, choices, how long it may take, the table and the verdict."""

from __future__ import annotations

import contextlib
from pathlib import Path

from rich.console import Console

from rethinking.console import Progress, StepsInWords, duration, say
from rethinking.experiments.reproduction import seconds_per_epoch
from rethinking.instrument.battery import RandomizationTest
from rethinking.instrument.run import Prepared, carry_out, prepare
from rethinking.report import tables
from rethinking.training import find
from rethinking.training.networks import cut, network_notes
from rethinking.training.preparation import resolve


class InstrumentConsole:
    """A test as it goes."""

    def __init__(self, test: RandomizationTest, console: Console) -> None:
        self._test = test
        self._console = console

    def run(self) -> None:
        """Trains what is missing, prints the verdict and writes the report. Raises what `carry_out` raises."""
        with contextlib.closing(StepsInWords(self._console)) as steps:
            prepared = prepare(self._test, steps.of(self._test.network))
        data, resolved = prepared.data, resolve(prepared.config, prepared.data)
        self._say(*data.described(), *cut(prepared.config, data), *network_notes(resolved, data), *prepared.choices)
        self._estimate(prepared)
        report = carry_out(prepared, Progress(self._console).observers)
        if report.cells:
            self._console.print()
            self._console.print(tables.Terminal(report.experiment.title, report.grid, ""))
        for finding in report.findings:
            self._console.print(f"- {finding.sentence}", highlight=False, markup=False)
            if finding.command:
                self._say(f"  next: {finding.command}")
        page = report.save(self._folder(report.network, data.name))
        self._say(f"written to {page.parent}; open {page}")

    def _folder(self, network: str, data: str) -> Path:
        return Path(self._test.out) if self._test.out else Path("tested") / f"{network}-{data}"

    def _estimate(self, prepared: Prepared) -> None:
        """How long the rest takes, where anything is missing."""
        configs = self._test.configs(prepared.config)
        found = [find(config) for config in configs.values()]
        left = [run for run in found if run is None or not run.finished]
        if not left:
            return
        config = resolve(prepared.config, prepared.data)
        images = config.train_subset or len(prepared.data.train)
        epoch = seconds_per_epoch(config, images, 1, {})
        done = sum(len(run.metrics) for run in left if run is not None)
        most = (len(left) * config.num_epochs - done) * epoch
        most = min(most, self._test.seconds)
        self._say(f"{len(left)} runs to train, an epoch in about {epoch:.2g} s: at most {duration(most)} in all")

    def _say(self, *lines: str) -> None:
        say(self._console, lines)
