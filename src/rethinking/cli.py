"""The command line: `rethinking test`, `train`, `sweep`, `reproduce` and the other commands, a function each.

Every option is a field of `ExperimentConfig`, `RandomizationTest`, `SweepOptions`, `Reproduction` or a dataclass below.

Only this module prints errors and ends the process. An error is one line. The exit status is 0 for success, 2 for a
user's mistake and 1 for a failure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rethinking.config import ExperimentConfig
from rethinking.errors import InputError, RunError, nearest, too_little_memory
from rethinking.models import catalogue
from rethinking.options import option, options_of
from rethinking.options import parse as parse_words


@dataclass(frozen=True)
class Training:
    """The options of `train` that are not fields of a configuration."""

    config: str | None = option(
        None,
        "read options from a YAML file, such as a run's config.yaml; options on the command line override the file",
        group="command",
        metavar="FILE",
    )
    force: bool = option(
        False, "train a finished run again, in a new folder beside the old one", group="command", default_text=""
    )


@dataclass(frozen=True)
class Scoring:
    """The arguments of `examples`."""

    runs: tuple[str, ...] = option(
        (), "run folders that kept their examples, such as seeds of one configuration", positional=True, metavar="RUN"
    )
    of: str | None = option(
        None,
        "score training images as their batches saw them, training images in evaluation mode, or test images",
        choices=("online", "train", "test"),
        default_text="the first that was kept",
    )
    score: tuple[str, ...] = option(
        (), "further scores of your own (docs/extending.md)", metavar="FILE.py:FUNCTION ...", default_text="none"
    )
    out: str = option("examples", "write examples.csv and the page examples.html here", metavar="FOLDER")


@dataclass(frozen=True)
class Remembering:
    """The arguments of `memorization`."""

    runs: tuple[str, ...] = option(
        (), "folders of finished runs that differ in --subset_seed", positional=True, metavar="RUN"
    )
    out: str = option("memorization", "write the tables and the page memorization.html here", metavar="FOLDER")


@dataclass(frozen=True)
class WritingLabels:
    """The arguments of `randomize-labels` that are not options of a run."""

    file: str = option("", "the .csv file to write", positional=True, metavar="FILE")


OF_LABELS = (  # options of a run that decide its labels
    *("dataset", "data_root", "resize", "colour", "holdout", "skip_unlabelled", "image_column", "label_column"),
    *("randomization", "randomization_options", "corruption_prob", "randomization_seed"),
)


@dataclass(frozen=True)
class Keeping:
    """The arguments of `keep`."""

    results: str = option(
        "", "folder of results; it is created if it does not exist", positional=True, metavar="RESULTS"
    )
    runs: tuple[str, ...] = option((), "run folders", positional=True, metavar="RUN")


@dataclass(frozen=True)
class Caching:
    """The options of `cache`."""

    remove: tuple[str, ...] | None = option(None, "delete these entries", metavar="NAME ...")
    remove_all: bool = option(False, "delete all entries", default_text="")


@dataclass(frozen=True)
class Verifying:
    """The options of `verify`: the fields of `verification.Choice`, and a dry run."""

    results: str = option("", "folder of results, such as results/cifar10", positional=True, metavar="RESULTS")
    table: str = option("", "the table or figure with the number, such as table1", metavar="NAME")
    row: tuple[str, ...] = option(
        (), "values of the row's labels, all of which must agree (default: every row)", metavar="VALUE ..."
    )
    quantity: tuple[str, ...] = option((), "verify only these columns, such as test_accuracy", metavar="NAME ...")
    x: float | None = option(None, "verify only this place on a figure's axis", metavar="PLACE")
    seeds: tuple[int, ...] = option((), "published seeds to train again (default: the first)", metavar="SEED ...")
    dataset: str | None = option(None, "where the data is (default: where its name leads)", metavar="NAME|PATH")
    data_root: str | None = option(None, "a folder to search for the data set's name before the Hub", metavar="FOLDER")
    runs_dir: str = option("runs", "keep run folders here, and find earlier runs here", metavar="FOLDER")
    device: str = option("auto", "where to compute", metavar="auto|cpu|cuda|cuda:N|mps")
    precision: str | None = option(
        None, "the precision of training (default: the published one)", metavar="auto|fp32|tf32|bf16"
    )
    threads: int | None = option(
        None, "computing threads (default: the published number, where the machine has as many)", metavar="N"
    )
    dry_run: bool = option(False, "train nothing: list the runs, and which of them are there")


@dataclass(frozen=True)
class NoOptions:
    """The options of `demo`, which has none."""


DEMO = ("mlp_3x512", "--dataset", "digits")  # arguments of `rethinking test`; under a minute on two cores


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs `rethinking COMMAND ...` and exits. `arguments` default to those of the process."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    sys.path.append(str(Path.cwd()))  # modules here are found as `python -m` finds them, after all that is installed
    commands = {
        "test": randomization_test,
        "train": train,
        "label-errors": label_errors,
        "examples": examples,
        "memorization": memorization,
        "randomize-labels": randomize_labels,
        "sweep": sweep,
        "reproduce": reproduce,
        "verify": verify,
        "keep": keep,
        "cache": cache,
        "demo": demo,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: rethinking test NETWORK      test whether a network fits random labels of your images")
        print("       rethinking train [OPTIONS]   train one experiment")
        print("       rethinking label-errors [OPTIONS]   find the images whose labels look wrong")
        print("       rethinking examples RUN      score the examples of runs, and show which labels look wrong")
        print("       rethinking memorization RUN  estimate which examples were memorized, from runs on subsets")
        print("       rethinking randomize-labels FILE   write the labels that an operator draws")
        print("       rethinking sweep [OPTIONS]   train a grid of experiments, and show a table and a figure of them")
        print("       rethinking reproduce NAME    compute a table or figure and show it beside the paper's")
        print("       rethinking verify RESULTS    train the run of a published number again and compare")
        print("       rethinking keep RESULTS RUN  copy the results of single runs into a folder of results")
        print("       rethinking cache             list decoded data sets, or delete them")
        print("       rethinking demo              test a network on the built-in digits")
        print("       rethinking --version         print the version of this package")
        print("rethinking COMMAND --help lists the options of a command")
        sys.exit(0)
    if arguments[0] == "--version":
        from rethinking import __version__

        print(f"rethinking {__version__}")
        sys.exit(0)
    if arguments[0] not in commands:
        _fail(InputError(f"unknown command '{arguments[0]}'{nearest(arguments[0], (*commands, '--version'))}"))
    commands[arguments[0]](arguments[1:])
    sys.exit(0)


def train(arguments: Sequence[str] | None = None) -> None:
    """`rethinking train ...` or `python train.py ...`: train one run and print its summary."""
    with _one_line_errors():
        if arguments is None:
            config, force = parse(sys.argv[1:])
        else:
            config, force = parse(list(arguments), prog="rethinking train")
        with _whole_imports():  # PyTorch, once the options are checked
            from rethinking.console import summary
            from rethinking.data import sources
            from rethinking.progress import Progress, StepsInWords, say
            from rethinking.training import train as run
            from rethinking.training.networks import cut, network_notes
            from rethinking.training.preparation import accepting, resolve

        _ = config.network, config.operator  # raises for a wrong name before any data is read
        console = _console()
        with contextlib.closing(StepsInWords(console)) as steps:
            data = sources.load_for(config, accepting(config), steps.of("data"))
        say(console, [*data.described(), *cut(config, data), *network_notes(resolve(config, data), data)])
        result = run(config, force=force, observers=Progress(console).observers(), progress=False)
        console.print(summary(result))
        console.print(f"kept in {result.path}", highlight=False, markup=False, soft_wrap=True)


def sweep(arguments: Sequence[str] | None = None) -> None:
    """`rethinking sweep ...`: train a grid of runs, show and write a table and a figure of them."""
    with _one_line_errors():
        from rethinking.sweeps.options import parse as parse_sweep

        options = parse_sweep(arguments or [])
        with _whole_imports():  # PyTorch, once the options are checked
            from rethinking.run_list_console import RunListConsole
            from rethinking.sweeps.sweep import Sweep

        RunListConsole(Sweep.of(options), _console()).carry_out()


def reproduce(arguments: Sequence[str] | None = None) -> None:
    """`rethinking reproduce ...` or `python reproduce.py ...`: train missing runs, show and write the results."""
    with _one_line_errors():
        with _whole_imports():
            from rethinking.experiments.reproduction import Reproduction
            from rethinking.run_list_console import RunListConsole

        prog = "reproduce.py" if arguments is None else "rethinking reproduce"
        words = list(sys.argv[1:] if arguments is None else arguments)
        description = "Reproduce tables and figures of Zhang et al. 2017 and show them beside the paper's numbers."
        reproduction = Reproduction(**parse_words(options_of(Reproduction), prog, description, words))
        RunListConsole(reproduction, _console()).carry_out()


def verify(arguments: Sequence[str] | None = None) -> None:
    """`rethinking verify RESULTS --table NAME --row VALUE ...`: train the run of a published number again and compare.

    The exit status is 0 where all numbers are within the spread that the published seeds explain, else 1.
    """
    with _one_line_errors():
        values = _parsed(Verifying, "verify", verify, arguments)
        dry_run = values.pop("dry_run")
        if not values["results"]:
            raise InputError("verify takes a folder of results: rethinking verify results/cifar10 --table table1")
        with _whole_imports():
            from rethinking.verification import Choice
            from rethinking.verification_console import VerificationConsole

        on_console = VerificationConsole(Choice(**values), _console())
        if dry_run:
            on_console.dry_run()
        elif not on_console.run():
            sys.exit(1)


def examples(arguments: Sequence[str] | None = None) -> None:
    """`rethinking examples RUN ...`: score the examples of runs, and write a table and a page with their images."""
    with _one_line_errors():
        chosen = Scoring(**_parsed(Scoring, "examples", examples, arguments))
        if not chosen.runs:
            raise InputError("examples takes run folders: rethinking examples runs/mlp_1x512-*")
        with _whole_imports():
            from rethinking.examples_console import show
            from rethinking.measures import scores

        for path in chosen.score:
            scores.load(path)
        show(chosen.runs, chosen.of, Path(chosen.out), _console())


def label_errors(arguments: Sequence[str] | None = None) -> None:
    """`rethinking label-errors ...`: find the images whose labels look wrong, by networks that left them out."""
    with _one_line_errors():
        from rethinking.measures.searching import BASE, DECIDED, Searching

        options = [one for one in options_of(ExperimentConfig, BASE) if one.name not in DECIDED]
        about = "Train networks that each leave a part of the images out, and show the images whose labels look wrong."
        values = parse_words([*options_of(Searching), *options], "rethinking label-errors", about, arguments or [])
        searching = Searching(**{one.name: values.pop(one.name) for one in options_of(Searching)})
        config = dataclasses.replace(BASE, **values)
        _ = config.network, config.operator  # raises for a wrong name before any data is read
        with _whole_imports():  # PyTorch, once the options are checked
            from rethinking.examples_console import show_label_errors
            from rethinking.measures import scores

        for path in searching.score:
            scores.load(path)
        show_label_errors(config, searching, _console())


def memorization(arguments: Sequence[str] | None = None) -> None:
    """`rethinking memorization RUN ...`: estimate memorization and influence from runs on random subsets."""
    with _one_line_errors():
        chosen = Remembering(**_parsed(Remembering, "memorization", memorization, arguments))
        if not chosen.runs:
            raise InputError("memorization takes run folders: rethinking memorization runs/mlp_1x512-*")
        with _whole_imports():
            from rethinking.examples_console import show_memorization

        show_memorization(chosen.runs, Path(chosen.out), _console())


def randomize_labels(arguments: Sequence[str] | None = None) -> None:
    """`rethinking randomize-labels FILE ...`: write the labels that an operator draws for the training images."""
    with _one_line_errors():
        options = [one for one in options_of(ExperimentConfig) if one.name in OF_LABELS]
        about = "Write the labels that an operator draws for the training images, as `rethinking train` trains on them."
        words = [*options_of(WritingLabels), *options]
        values = parse_words(words, "rethinking randomize-labels", about.replace("`", ""), arguments or [])
        if not values["file"]:
            raise InputError("randomize-labels takes a file to write: rethinking randomize-labels labels.csv ...")
        path = Path(values.pop("file"))
        config = ExperimentConfig(**values)
        if not config.operator.corrupts_labels:
            raise InputError(
                "randomize-labels takes an operator that changes labels and keeps the data's classes, not randomization"
                f" {config.randomization}"
            )
        with _whole_imports():
            from rethinking.data.given_labels import write_labels
            from rethinking.training.preparation import labels_of

        labels, true_labels, class_names = labels_of(config)
        write_labels(path, labels, true_labels, class_names)
        print(f"{(labels != true_labels).sum():,} of {len(labels):,} labels are changed; written to {path}")


def keep(arguments: Sequence[str] | None = None) -> None:
    """`rethinking keep RESULTS RUN ...`: copy the results of single runs into a folder of results."""
    with _one_line_errors():
        chosen = Keeping(**_parsed(Keeping, "keep", keep, arguments))
        if not chosen.runs:
            raise InputError("keep takes a folder of results and run folders: rethinking keep results/mine runs/*")
        with _whole_imports():
            from rethinking.experiments import archive

        archive.add(Path(chosen.results), [archive.of_run_folder(Path(run)) for run in chosen.runs])
        print(f"runs kept in {chosen.results}: {len(chosen.runs)}")


def cache(arguments: Sequence[str] | None = None) -> None:
    """`rethinking cache`: list decoded data sets with their sizes, or delete them."""
    with _one_line_errors():
        from rethinking.data import cache as decoded

        chosen = Caching(**_parsed(Caching, "cache", cache, arguments))
        if chosen.remove is not None and (chosen.remove_all or not chosen.remove):
            raise InputError("--remove takes the names of entries and cannot go with --remove_all")
        if chosen.remove_all:
            print(f"{decoded.remove_all()} removed from {decoded.folder()}")
            return
        if chosen.remove:
            for name in chosen.remove:
                decoded.remove(name)
            print(f"{len(chosen.remove)} removed from {decoded.folder()}")
            return
        sizes = decoded.entries()
        for name, size in sizes.items():
            print(f"{size / 2**20:10,.1f} MiB  {name}")
        print(f"{sum(sizes.values()) / 2**20:10,.1f} MiB in {decoded.folder()}")


def randomization_test(arguments: Sequence[str] | None = None) -> None:
    """`rethinking test NETWORK ...`: test whether a network fits random labels, how fast, and its gap (Section 2)."""
    with _one_line_errors():
        from rethinking.instrument.battery import all_options, asked_for

        about = "Train a network on true and on random labels of images, and report what the comparison shows."
        values = parse_words(all_options(), "rethinking test", about, arguments or [])
        test = asked_for(values.pop("network"), values)
        with _whole_imports():  # PyTorch, once the options are checked
            from rethinking.instrument_console import InstrumentConsole

        InstrumentConsole(test, _console()).run()


def demo(arguments: Sequence[str] | None = None) -> None:
    """`rethinking demo`: run `rethinking test` on a small network and the built-in digits."""
    with _one_line_errors():
        _parsed(NoOptions, "demo", demo, arguments)
    randomization_test(DEMO)


def _parsed(kind: type, name: str, command: Callable[..., None], arguments: Sequence[str] | None) -> dict[str, Any]:
    """The option values of a command by name. The command's docstring is the description in `--help`."""
    about = (command.__doc__ or "").partition(": ")[2].replace("`", "")
    return parse_words(options_of(kind), f"rethinking {name}", about[:1].upper() + about[1:], arguments or [])


def parse(arguments: list[str], prog: str = "train.py") -> tuple[ExperimentConfig, bool]:
    """Reads a configuration and the switch `--force` from a command line. Raises `InputError` for any mistake in it.

    A file's value of a dependent option is dropped where the command line overrides the option it depends on. For
    example, `--lr_schedule cosine` drops the file's `lr_decay`.
    """
    defaults, arguments = _from_file(arguments)
    chosen = options_of(ExperimentConfig, defaults)
    description = "Train one experiment of Zhang et al. 2017. The defaults are the paper's."
    values = parse_words([*chosen, *options_of(Training)], prog, description, arguments)
    force = values.pop("force")
    if values.pop("config") is not None:
        raise InputError("--config was given twice; keep one")
    for chosen_by, detail in (
        ("lr_schedule", "lr_decay"),
        ("randomization", "corruption_prob"),
        ("randomization", "randomization_options"),
        ("model_name", "model_options"),
    ):
        overridden = values[chosen_by] != getattr(defaults, chosen_by)
        if overridden and values[detail] == getattr(defaults, detail):
            values[detail] = None  # the file's value belongs to the overridden choice
    if values["model_name"] != defaults.model_name and defaults.model_name in catalogue.PAPER:
        of_file = catalogue.find(defaults.model_name)
        for option_name in ("init", "learning_rate"):
            if values[option_name] == getattr(defaults, option_name) == getattr(of_file, option_name):
                values[option_name] = None  # the file holds the default of the overridden network
    return dataclasses.replace(defaults, **values), force


def _from_file(arguments: list[str]) -> tuple[ExperimentConfig, list[str]]:
    """The configuration of `--config FILE`, or the defaults, and the remaining arguments."""
    for index, argument in enumerate(arguments):
        name, equals, path = argument.partition("=")
        if name == "--config":
            rest = arguments[index + 1 :]
            if not equals:
                if not rest:
                    raise InputError("--config needs the path of a YAML file")
                path, rest = rest[0], rest[1:]
            return ExperimentConfig.from_yaml(path), arguments[:index] + rest
    return ExperimentConfig(), arguments


def _console() -> Any:
    from rich.console import Console

    from rethinking.console import LogLines

    console = Console()
    logger = logging.getLogger("rethinking")
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [LogLines(console)]
    return console


@contextlib.contextmanager
def _whole_imports() -> Iterator[None]:
    """Delays interruptions until the imports are done. An interrupted import would show an error of the library."""
    pending: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, lambda caught, _: pending.append(caught)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if pending:
        raise KeyboardInterrupt(pending[0])


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turns errors that a user can mend, and interruptions, into one line and an exit status."""

    def terminate(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may have characters that the terminal lacks
    try:
        yield
    except (InputError, RunError) as error:
        _fail(error)
    except BrokenPipeError:  # as in `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        _fail(RunError(f"{error.filename or 'the system'}: {error.strerror or error}"))
    except (MemoryError, RuntimeError) as error:
        shortage = too_little_memory(error)
        if shortage is None:
            raise
        _fail(shortage)
    except KeyboardInterrupt as interruption:
        number = interruption.args[0] if interruption.args else signal.SIGINT
        print("\nstopped; run the same command again to continue", file=sys.stderr)
        sys.exit(128 + number)


def _fail(error: InputError | RunError) -> NoReturn:
    print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
    sys.exit(error.exit_status)
