"""The command line: `rethinking train`, `reproduce`, `keep`, `cache` and `demo`.

Every option is a field of `ExperimentConfig` or of `Reproduction`.

The only place that prints to a person and exits: with 0, with 2 for a user's mistake, with 1 for a failure, each
told in one line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import tyro

from rethinking.config import ExperimentConfig, field_types
from rethinking.errors import InputError, RunError, nearest, too_little_memory

CONFIG_HELP = "a YAML file of options, such as a run's config.yaml; options on the command line override it"
FORCE_HELP = "train a finished run again, in a folder beside the old one"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """`rethinking COMMAND ...`"""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    commands = {"train": train, "reproduce": reproduce, "keep": keep, "cache": cache, "demo": demo}
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: rethinking train [OPTIONS]   train one experiment; --help lists the options")
        print("       rethinking reproduce NAME    a table or figure beside the paper's; --help lists them")
        print("       rethinking keep RESULTS RUN  keep what single runs measured in a folder of results")
        print("       rethinking cache             the decoded data sets; --remove NAME ... or --remove_all")
        print("       rethinking demo              true against random labels on the built-in digits")
        sys.exit(0)
    if arguments[0] not in commands:
        _fail(InputError(f"unknown command '{arguments[0]}'{nearest(arguments[0], commands)}"))
    commands[arguments[0]](arguments[1:])
    sys.exit(0)


def train(arguments: Sequence[str] | None = None) -> None:
    """`python train.py ...`: one run, with a summary at the end."""
    with _one_line_errors():
        if arguments is None:
            config, force = parse(sys.argv[1:])
        else:
            config, force = parse(list(arguments), prog="rethinking train")
        with _whole_imports():  # PyTorch, once the options are known to be right
            from rethinking.console import Progress, StepsInWords, say, summary
            from rethinking.data import sources
            from rethinking.training import train as run
            from rethinking.training.preparation import accepting, cut, network_notes, resolve

        console = _console()
        with contextlib.closing(StepsInWords(console)) as steps:
            data = sources.load_for(config, accepting(config), steps.of("data"))
        say(console, [*data.described(), *cut(config, data), *network_notes(resolve(config, data), data)])
        result = run(config, force=force, observers=Progress(console).observers())
        console.print(summary(result))
        console.print(f"kept in {result.path}", highlight=False, markup=False, soft_wrap=True)


def reproduce(arguments: Sequence[str] | None = None) -> None:
    """`python reproduce.py table1 ...`: train what is missing, show it beside the paper, write the results."""
    with _one_line_errors():
        with _whole_imports():
            from rethinking.experiments.reproduction import Reproduction
            from rethinking.reproducing import Reproducing

        prog = "reproduce.py" if arguments is None else "rethinking reproduce"
        words = list(sys.argv[1:] if arguments is None else arguments)
        parsed, unknown = _parse(
            Reproduction, prog, "Reproduce tables and figures of Zhang et al. 2017, beside the paper's numbers.", words
        )
        _refuse(unknown, [spec.name for spec in dataclasses.fields(Reproduction) if spec.init])
        shown = Reproducing(parsed, _console())
        if parsed.dry_run:
            shown.dry_run()
        else:
            shown.run()


def keep(arguments: Sequence[str] | None = None) -> None:
    """`rethinking keep RESULTS RUN ...`: the evidence of single runs into a folder of results."""
    with _one_line_errors():
        folder, *runs = arguments or ["--help"]
        if folder.startswith("-") or not runs:
            raise InputError("keep takes a folder of results and run folders: rethinking keep results/mine runs/*")
        with _whole_imports():
            from rethinking.experiments import archive

        archive.add(Path(folder), [archive.of_run_folder(Path(run)) for run in runs])
        print(f"{len(runs)} kept in {folder}")


def cache(arguments: Sequence[str] | None = None) -> None:
    """`rethinking cache`: decoded data sets with their sizes; `--remove NAME ...` and `--remove_all` delete them."""
    with _one_line_errors():
        from rethinking.data import cache as kept

        option, *names = arguments or [""]
        option = option.replace("-", "_").replace("__", "--", 1)
        if option == "--remove_all" and not names:
            print(f"{kept.remove_all()} removed from {kept.folder()}")
            return
        if option == "--remove" and not names:
            raise InputError("--remove takes the names of entries; rethinking cache lists them")
        if option not in ("", "--remove"):
            raise InputError(f"cache takes --remove NAME ... or --remove_all, not '{' '.join(arguments or [])}'")
        if option:
            for name in names:
                kept.remove(name)
            print(f"{len(names)} removed from {kept.folder()}")
            return
        sizes = kept.entries()
        for name, size in sizes.items():
            print(f"{size / 2**20:10,.1f} MiB  {name}")
        print(f"{sum(sizes.values()) / 2**20:10,.1f} MiB in {kept.folder()}")


def demo(arguments: Sequence[str] | None = None) -> None:
    """`make demo`: true against random labels on the built-in digits, and a picture of both learning curves."""
    with _one_line_errors():
        if arguments:
            raise InputError(f"demo takes no options, not '{arguments[0]}'")
        with _whole_imports():
            from rethinking.console import Progress, comparison
            from rethinking.experiments.demo import CONFIGS
            from rethinking.report.figures import learning_curves
            from rethinking.training import train as run

        console = _console()
        results = {name: run(config, observers=Progress(console).observers()) for name, config in CONFIGS.items()}
        console.print(comparison(results))
        picture = learning_curves(results, Path("runs") / "demo.png")
        console.print(f"learning curves: {picture}", highlight=False)


def parse(arguments: list[str], prog: str = "train.py") -> tuple[ExperimentConfig, bool]:
    """The configuration and `--force` of a command line. Raises `InputError` for anything that is wrong in it."""
    defaults, arguments = _from_file(arguments)
    description = "Train one experiment of Zhang et al. 2017. The defaults are the paper's."
    parsed, unknown = _parse(_options(defaults), prog, description, arguments)
    _refuse(
        unknown,
        [
            *(spec.metadata["flag"] or spec.name for spec in dataclasses.fields(defaults)),
            "config",
            "force",
            "help",
        ],
    )
    groups = [vars(getattr(parsed, group.name)) for group in dataclasses.fields(parsed)]
    values = {name: value for group in groups for name, value in group.items()}
    force = values.pop("force")
    if values.pop("config") is not None:
        raise InputError("--config was given twice; keep one")
    values |= {
        spec.name: getattr(defaults, spec.name) for spec in dataclasses.fields(defaults) if spec.metadata["recorded"]
    }
    for chosen, detail in (
        ("lr_schedule", "lr_decay"),
        ("randomization", "corruption_prob"),
        ("randomization", "randomization_options"),
        ("model_name", "model_options"),
    ):
        overridden = values[chosen] != getattr(defaults, chosen)
        if overridden and values[detail] == getattr(defaults, detail):
            values[detail] = None  # what the file says of it goes with what was overridden
    return ExperimentConfig(**values), force


def _parse(kind: Any, prog: str, description: str, arguments: list[str]) -> tuple[Any, list[str]]:
    """What `tyro` makes of the arguments, and those it does not know. Raises `InputError`, or exits after --help."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(
                kind,
                prog=prog,
                description=description,
                args=arguments,
                use_underscores=True,
                return_unknown_args=True,
            )
    except SystemExit as exit:
        if not exit.code:
            raise  # --help
        raise InputError(_in_one_line(errors.getvalue())) from None


def _refuse(unknown: list[str], names: list[str]) -> None:
    """Raises `InputError` for arguments that are no option, with the nearest name there is."""
    if unknown:
        wrong = next((name for name in unknown if name.startswith("-")), unknown[0]).split("=")[0]
        suggestion = nearest(wrong.replace("-", "_").replace("__", "--", 1), [f"--{name}" for name in names])
        raise InputError(f"unknown option '{wrong}'{suggestion or '; --help lists all'}")


def _from_file(arguments: list[str]) -> tuple[ExperimentConfig, list[str]]:
    """The configuration of `--config FILE`, else the defaults, and the arguments without it."""
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


def _options(defaults: ExperimentConfig) -> type:
    """A nested dataclass for tyro with one member a help group, made from the fields of `ExperimentConfig`."""
    types = field_types()
    groups: dict[str, list[tuple[str, Any, Any]]] = {}
    for spec in dataclasses.fields(ExperimentConfig):
        meta = spec.metadata
        if meta["recorded"]:
            continue
        default = getattr(defaults, spec.name)
        shown = meta["default_text"] if default is None else _shown(default)
        argument = tyro.conf.arg(
            name=meta["flag"] or None,
            help=meta["help"],
            help_behavior_hint=f"(default: {shown})" if shown else "",
            metavar=meta["metavar"] or None,
        )
        annotated: Any = Annotated[types[spec.name], argument]
        groups.setdefault(meta["group"], []).append((spec.name, annotated, dataclasses.field(default=default)))
    for name, kind, default, help in (
        ("config", str | None, None, CONFIG_HELP),
        ("force", bool, False, FORCE_HELP),
    ):
        argument = tyro.conf.arg(help=help, help_behavior_hint="")
        groups.setdefault("command", []).append((name, Annotated[kind, argument], dataclasses.field(default=default)))
    sections = []
    for name, members in groups.items():
        section = dataclasses.make_dataclass(name, members)
        sections.append((name, tyro.conf.OmitArgPrefixes[section], dataclasses.field(default_factory=section)))  # type: ignore[misc,valid-type]
    return dataclasses.make_dataclass("train", sections)


def _shown(default: Any) -> str:
    return {True: "on", False: "off"}[default] if isinstance(default, bool) else str(default)


def _in_one_line(message: str) -> str:
    """tyro's framed error message as one line: what was wrong, and what the option takes."""
    lines = [line.strip("│╭╮╰╯─| ") for line in message.splitlines()]
    text = " ".join(line for line in lines if line)
    text = re.sub(r"\s*For full helptext.*$", "", text)
    if wrong := re.search(r"Error parsing (--\S+): (.*'.*) Argument helptext: \S+ (\[.*?\]\]|\S+) (.*)", text):
        flag, reason, takes, help = wrong.groups()
        given = re.findall(r"'([^']*)'", reason)[-1]
        return f"{flag} takes {takes}, not '{given}': {help}"
    if missing := re.search(r"Missing value for argument '(--\S+)'", text):
        return f"{missing[1]} needs a value; --help says which"
    return re.sub(r"^Value error Error parsing \w+: ", "", text)  # what a dataclass says of its own values


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
    """Interruptions take effect after the imports; in the midst of one they would show as errors of the library."""
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
    """Errors that a person can mend, and interruptions, as one line and an exit status."""

    def terminate(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may have letters that the terminal lacks
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
        told = too_little_memory(error)
        if told is None:
            raise
        _fail(told)
    except KeyboardInterrupt as interruption:
        number = interruption.args[0] if interruption.args else signal.SIGINT
        print("\nstopped; the same command goes on after what is finished", file=sys.stderr)
        sys.exit(128 + number)


def _fail(error: InputError | RunError) -> NoReturn:
    print(f"error: {' '.join(str(error).splitlines())}", file=sys.stderr)
    sys.exit(error.exit_status)
