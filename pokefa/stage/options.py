"""The command-line options that scripts share, their parsers, and the settings of a command line."""

from __future__ import annotations

import argparse
import inspect
import math
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pokefa.engine.work import Cluster
from pokefa.errors import InputError
from pokefa.images.decoding import SECONDS, Limits
from pokefa.images.structure import MAX_CHUNKS, MAX_SCANS, MAX_SEGMENTS, Caps
from pokefa.images.weights import Trust
from pokefa.ledger.runs import Run
from pokefa.machine import check_address_space, check_path


@dataclass(frozen=True)
class Options:
    """The shared options of a run, without the stage's own settings."""

    root: Path = Path()
    limit: int | None = None
    ids: tuple[str, ...] | None = None
    redo: bool = False
    retry_errors: bool = False
    dry_run: bool = False
    workers: int | None = None
    batch_size: int | None = None
    cluster: Cluster | None = None
    data_root: str | None = None
    decoding: Limits = field(default_factory=Limits)
    strict: bool = False
    quiet: bool = False
    log_level: str = "INFO"

    @property
    def node_threads(self) -> int | None:
        """Threads per worker on a node of the cluster; None if the workers share this machine's cores."""
        return self.cluster.cpus if self.cluster else None


@dataclass(frozen=True)
class CommandLine:
    """The command line of a run, as its journal records it.

    Args:
        words: the command line as typed.
        settings: every setting by name, after defaults.
        repeat: the given settings that the stage's next run needs too.
        once: the names of the settings given for this run only, such as --limit.
    """

    words: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    repeat: Mapping[str, Any] = field(default_factory=dict)
    once: tuple[str, ...] = ()


class StageParser(argparse.ArgumentParser):
    """A parser that knows which settings were given, and which of them are for one run only.

    Settings have the names of their flags. Names that begin with an underscore are not settings.
    """

    def __init__(self, doc: str | None) -> None:
        super().__init__(description=inspect.cleandoc(doc or ""), formatter_class=_Formatter)
        self._once: set[str] = set()
        self._subcommands: set[str] = set()

    def for_one_run(self, *names: str) -> None:
        """Declare settings for one run only, such as the choice of rows; the next run does not repeat them."""
        self._once.update(names)

    def add_subcommands(self, name: str, choices: Sequence[str], text: str) -> None:
        """Add a subcommand."""
        self._subcommands.add(name)
        self.add_argument(name, choices=choices, help=text)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parse a command line; the result's `_given` is the `CommandLine` without its settings."""
        parsed: argparse.Namespace = super().parse_args(args, namespace)
        given = {
            name: value
            for name, value in vars(parsed).items()
            if not name.startswith("_") and name not in self._subcommands and value != self.get_default(name)
        }
        parsed._given = CommandLine(
            tuple(sys.argv[1:] if args is None else args),
            repeat={name: value for name, value in given.items() if name not in self._once},
            once=tuple(name for name in given if name in self._once),
        )
        return parsed


def command_line(args: argparse.Namespace) -> CommandLine:
    """Return the settings of a parsed command line, including later changes by the script."""
    given: CommandLine = args._given
    return replace(given, settings={name: value for name, value in vars(args).items() if not name.startswith("_")})


class _Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, [], ()):
            return action.help
        return super()._get_help_string(action)


def reading_parser(doc: str | None) -> StageParser:
    """Return a parser with --root, for scripts that change nothing; `doc`, their docstring, is the text of --help."""
    parser = StageParser(doc)
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the dataset")
    return parser


def add_json_flag(parser: StageParser) -> None:
    parser.add_argument("--json", action="store_true", help="print only the JSON line, with all details")


def stage_parser(doc: str | None, *, rows: bool = True, workers: bool = False) -> StageParser:
    """Return a parser with the shared options; `doc`, the script's docstring, is the text of --help.

    Args:
        rows: offer the options that choose rows (--ids, --limit, --redo, --retry-errors).
        workers: offer --workers.
    """
    parser = StageParser(doc)
    parser.for_one_run(
        "root", "ids", "ids_file", "limit", "redo", "retry_errors", "dry_run", "quiet", "log_level"
    )  # fmt: skip
    shared = parser.add_argument_group("options that every script shares")
    shared.add_argument("--root", type=Path, default=Path(), help="folder of the dataset")
    if rows:
        shared.add_argument("--ids", nargs="+", metavar="ID", help="only these images; id prefixes are enough")
        shared.add_argument("--ids-file", type=Path, metavar="FILE", help="only the images in FILE, one id per line")
        shared.add_argument("--limit", type=positive_int, metavar="N", help="at most N images")
        shared.add_argument("--redo", action="store_true", help="also images that are done; overrides are kept")
        shared.add_argument("--retry-errors", action="store_true", help="also images that failed before")
    shared.add_argument("--dry-run", action="store_true", help="show what would be done and change nothing")
    if workers:
        shared.add_argument("--workers", type=positive_int, metavar="N", help="number of workers (default: all cores)")
    shared.add_argument("--strict", action="store_true", help="exit with code 1 if an image fails")
    shared.add_argument("--quiet", action="store_true", help="no progress bar, and warnings only")
    shared.add_argument(
        "--log-level",
        choices=["DEBUG", "INFO", "WARNING", "ERROR"],
        default="INFO",
        help="lowest level to log",
    )
    return parser


def add_data_option(parser: StageParser) -> None:
    """Offer to store the images outside the root."""
    parser.add_argument(
        "--data-root",
        metavar="ADDRESS",
        help="where the images are stored, if not under --root: a folder, or a URL such as s3://bucket/folder; the "
        "ledger stays under --root",
    )


def add_trust_options(parser: StageParser) -> None:
    """Offer to run model files that are not the pinned ones."""
    group = parser.add_argument_group("model files other than the pinned ones")
    group.add_argument(
        "--trust-model-file",
        action="store_true",
        help="run a model file with another SHA-256, in a process that cannot write, read your files or open "
        "connections",
    )
    group.add_argument(
        "--unconfined-model-file",
        action="store_true",
        help="with --trust-model-file: run it with all of your rights, even if the system can confine it",
    )


def trust_from(parser: argparse.ArgumentParser, args: argparse.Namespace) -> Trust:
    """Return the permissions of model files on a parsed command line; exits if the flags contradict each other."""
    if args.unconfined_model_file and not args.trust_model_file:
        parser.error("--unconfined-model-file needs --trust-model-file: add it")
    return Trust(args.trust_model_file, args.unconfined_model_file)


def add_decoding_options(parser: StageParser) -> None:
    """Offer the options that `limits_from` reads."""
    group = parser.add_argument_group("limits of decoding")
    group.add_argument(
        "--decode-seconds", type=number(0.1, 86_400), default=SECONDS, metavar="S", help="CPU time per image"
    )
    group.add_argument(
        "--decode-memory",
        type=memory_size,
        metavar="SIZE",
        help="memory for all large images decoded at the same time, such as 512M or 8G (default: half of the memory "
        "of the machine or container)",
    )
    for part, most, meaning in (
        ("scans", MAX_SCANS, "scans of a JPEG"),
        ("segments", MAX_SEGMENTS, "segments of a JPEG"),
        ("chunks", MAX_CHUNKS, "chunks of a PNG or WebP, strips of a TIFF"),
    ):
        group.add_argument(f"--max-{part}", type=positive_int, default=most, metavar="N", help=f"maximum {meaning}")


def limits_from(args: argparse.Namespace) -> Limits:
    """Return the limits on a parsed command line, or the defaults if it has no such options."""
    given = vars(args)
    if "decode_seconds" not in given:
        return Limits()
    return Limits(args.decode_seconds, args.decode_memory, Caps(args.max_scans, args.max_segments, args.max_chunks))


def add_cluster_options(
    parser: StageParser, requirements: str, *, cpus: int = 1, batches: bool = False, builds: bool = False
) -> None:
    """Offer to run the stage's work on a Ray cluster.

    Args:
        requirements: the stage's file is requirements/requirements_<requirements>.txt.
        cpus: default of --cpus-per-worker.
        batches: offer --batch-size.
        builds: the work writes under --root too, and not only to --data-root.
    """
    parser.set_defaults(_requirements=requirements, _builds=builds, _cpus=cpus, _batches=batches)
    group = parser.add_argument_group("on a Ray cluster")
    group.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="run on this machine's processes, or on a Ray cluster",
    )
    group.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="the cluster's head as HOST:PORT, or auto on one of its nodes (default: $RAY_ADDRESS, else Ray is started "
        "on this machine for the run)",
    )
    group.add_argument(
        "--ray-runtime-env",
        choices=["stage", "code"],
        help="what each node installs first: the stage's requirements and this code, or only the code if the nodes "
        "have the requirements (default: stage, or code if Ray is started for the run)",
    )
    group.add_argument("--cpus-per-worker", type=positive_int, metavar="N", help=f"cores per worker (default: {cpus})")
    group.add_argument(
        "--gpus-per-worker", type=number(0), metavar="X", help="GPUs per worker; with 0.5, two workers share one"
    )
    if batches:
        group.add_argument(
            "--batch-size",
            type=positive_int,
            metavar="N",
            help="images sent to a worker at a time; larger batches reduce the driver's load",
        )


def cluster_from(args: argparse.Namespace) -> Cluster | None:
    """Return the cluster on a parsed command line, or None for this machine's processes.

    Raises:
        InputError: Ray is not installed, or the options contradict each other.
    """
    given = vars(args)
    if given.get("engine", "local") == "local":
        flags = ("--ray-address", "--ray-runtime-env", "--cpus-per-worker", "--gpus-per-worker")
        for flag in flags:
            if given.get(flag[2:].replace("-", "_")) is not None:
                raise InputError(f"{flag} is for a Ray cluster: add --engine ray, or remove it")
        return None
    address = args.ray_address or os.environ.get("RAY_ADDRESS") or None
    if address is not None and "://" in address:
        raise InputError(f"--ray-address {address}: give HOST:PORT, and run the script on a node of the cluster")
    if find_spec("ray") is None:
        raise InputError(
            "--engine ray needs Ray, which is not installed here: pip install -r requirements/requirements_ray.txt"
        )
    wanted = args.ray_runtime_env or ("stage" if address else "code")
    data_root = args.data_root
    on_objects = data_root is not None and "://" in data_root
    shared = args.root if args._builds or data_root is None else None if on_objects else Path(data_root)
    return Cluster(
        address,
        f"{args._requirements}+data_root" if on_objects else args._requirements,
        install=wanted == "stage",
        cpus=args.cpus_per_worker or args._cpus,
        gpus=args.gpus_per_worker or 0.0,
        shared=shared.absolute() if shared else None,
    )


@cache
def shared_settings() -> frozenset[str]:
    """Return the names of the settings that affect where and how a stage works, but not its results."""
    parser = stage_parser("", workers=True)
    add_data_option(parser)
    add_trust_options(parser)
    add_decoding_options(parser)
    add_cluster_options(parser, "core", batches=True)
    return frozenset(command_line(parser.parse_args([])).settings)


def result_settings(run: Run) -> dict[str, Any]:
    """Return the settings of a recorded run that affect its results, without those that are off."""
    hidden = shared_settings().union(run.once)
    shown = {name: value for name, value in run.settings.items() if name not in hidden}
    return {name: value for name, value in shown.items() if value is not None and value is not False and value != []}


def options_from(args: argparse.Namespace) -> Options:
    """Unpack the shared options of a parsed command line.

    Raises:
        InputError: a path cannot be used, or the options of the cluster contradict each other.
        PokefaError: this process has too little address space.
    """
    check_address_space()
    given = vars(args)
    check_path("--root", args.root)
    if (data_root := given.get("data_root")) is not None and "://" not in data_root:
        check_path("--data-root", Path(data_root))
    cluster = cluster_from(args)
    return Options(
        root=args.root.absolute() if cluster else args.root,  # nodes have another working folder
        limit=given.get("limit"),
        ids=read_ids(given.get("ids"), given.get("ids_file")),
        redo=given.get("redo", False),
        retry_errors=given.get("retry_errors", False),
        dry_run=args.dry_run,
        workers=given.get("workers"),
        batch_size=given.get("batch_size") if given.get("_batches") else None,
        cluster=cluster,
        data_root=given.get("data_root"),
        decoding=limits_from(args),
        strict=args.strict,
        quiet=args.quiet,
        log_level=args.log_level,
    )


def read_ids(ids: list[str] | None, ids_file: Path | None) -> tuple[str, ...] | None:
    """Return the ids on the command line and in a file, without repeats; None if neither was given.

    Raises:
        InputError: the file cannot be read.
    """
    if ids is None and ids_file is None:
        return None
    named = list(ids or [])
    if ids_file is not None:
        try:
            named += ids_file.read_text(encoding="utf-8-sig").split()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--ids-file {ids_file} cannot be read: {error}") from None
    return tuple(dict.fromkeys(named))


def whole_number(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return an argparse type for integers in an inclusive range."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or int(text) < low or (high is not None and int(text) > high):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number {_span(low, high)}")
        return int(text)

    return parse


def memory_size(text: str) -> int:
    """Parse an amount of memory for argparse: bytes, or a number with K, M, G or T, in powers of 1024."""
    found = re.fullmatch(r"([1-9][0-9]{0,12})([KMGT]?)", text.upper())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount of memory such as 512M or 8G")
    return int(found[1]) << 10 * " KMGT".index(found[2] or " ")


def number(low: float, high: float | None = None) -> Callable[[str], float]:
    """Return an argparse type for numbers in an inclusive range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= low and (high is None or value <= high)):
            raise argparse.ArgumentTypeError(f"{text!r} is not a number {_span(low, high)}")
        return value

    return parse


def _span(low: float, high: float | None) -> str:
    return f"of {low:g} or more" if high is None else f"from {low:g} to {high:g}"


positive_int = whole_number(1)
