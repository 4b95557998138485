"""Build the environments, and run the pipeline, a single script, the demo or the tests.

    python3 pipeline.py demo                          run everything on drawn images and stand-in services
    python3 pipeline.py test [STAGE ...]              run the tests, each stage in its own environment
    python3 pipeline.py run --root DIR                run the ten stages with the real services
    python3 pipeline.py run --root DIR --plan         print the commands only
    python3 pipeline.py status --root DIR             run one script by its name, in its environment
    python3 pipeline.py setup all                     build the environments only

Requires Python 3.11 or newer and nothing else.
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # noqa: UP036 -- print this, not an ImportError, in an older version
    raise SystemExit("PokeFA needs Python 3.11 or newer")

import argparse
import json
import subprocess
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from demo.run import DEMO_PORT, run_demo
from pokefa.errors import EXIT_FAILED, EXIT_INTERRUPTED, InputError, InputErrors, PokefaError
from pokefa.setup.config import read_config, unknown_name
from pokefa.setup.environments import CHECKOUT, ensure, environment, environment_names
from pokefa.setup.preflight import check_all
from pokefa.setup.runner import Runner, checkout_variables, choose_steps, run_by_name
from pokefa.setup.steps import COMMANDS, Step, steps_in_run

# Test folders whose environment has another name.
TEST_ENVIRONMENTS = {
    "attack": "metadata",
    "demo": "core",
    "pipeline": "core",
    "ray": "storage+ray",
    "storage": "storage+ray",
}
# The longest start first, so that none of them runs alone at the end.
LONGEST_TESTS = ("pipeline", "ray", "webdataset", "ocr", "metadata", "score", "scraping", "core")
OWN_COMMANDS = ("demo", "test", "run", "setup")
LINT_CHECKS = {
    "ruff check": ("-m", "ruff", "check", "."),
    "ruff format": ("-m", "ruff", "format", "--check", "."),
    "mypy": ("-m", "mypy"),
}


def run_stages(root: Path, first: str | None, last: str | None, config: Path | None, *, plan: bool, disk: bool) -> None:
    """Run the stages with the real services, or print their commands.

    Args:
        disk: check the free disk before the first stage.

    Raises:
        InputErrors: a check before the first stage failed; nothing was run.
    """
    problems: list[str] = []
    flags: dict[str, list[str]] = {}
    steps: list[Step] = []
    try:
        steps = choose_steps(first, last)
    except InputError as error:
        problems += problems_of(error)
    try:
        flags = read_config(config, [step.command for step in steps_in_run()]) if config else {}
    except InputError as error:
        problems += problems_of(error)
    if problems:
        raise InputErrors(problems)
    runner = Runner(root.absolute(), flags)
    if plan:
        for step in steps:
            print(runner.show(step))
        return
    check_all(runner, steps, disk=disk)
    with runner.locked():
        for step in steps:
            runner.run(step)


def problems_of(error: PokefaError) -> Sequence[str]:
    """Return the problems that an error reports, one line each."""
    return error.problems if isinstance(error, InputErrors) else [str(error)]


def set_up(name: str) -> None:
    """Build one environment or all; the last stdout line is a JSON object with the interpreter under `python`."""
    names = environment_names() if name == "all" else [name]
    pythons = {each: str(ensure(environment(each))) for each in names}
    print(json.dumps({"python": pythons if name == "all" else pythons[name]}))


def run_tests(stages: Sequence[str], jobs: int) -> int:
    """Run test folders, each in its own environment, and the linters; return the number of failed tests.

    A folder's output is shown when the folder ends. A folder whose tests could not run counts as one failure.

    Raises:
        InputError: a test folder does not exist.
    """
    folders = sorted(path.name for path in (CHECKOUT / "tests").iterdir() if any(path.glob("test_*.py")))
    choices = ["lint", *folders]
    for stage in stages:
        if stage not in choices:
            raise InputError(f"unknown test folder {stage!r}: choose from {', '.join(choices)}")
    wanted = sorted(stages or choices, key=lambda stage: (*LONGEST_TESTS, stage).index(stage))
    total: Counter[str] = Counter()
    with ThreadPoolExecutor(jobs) as threads:
        under_way = {threads.submit(lint if stage == "lint" else partial(run_test_folder, stage)): stage
                     for stage in wanted}  # fmt: skip
        for ended in as_completed(under_way):
            counts, output = ended.result()
            total += counts
            print(f"{output}{under_way[ended]}: {closing_line(counts)}\n", flush=True)
    print(closing_line(total))
    return total["failed"]


def lint() -> tuple[Counter[str], str]:
    """Run ruff and mypy; return the counts, with each check as one test, and the output."""
    python = ensure(environment("lint"))
    counts: Counter[str] = Counter()
    output = ""
    for name, command in LINT_CHECKS.items():
        code, printed = _run_check([str(python), *command])
        counts["failed" if code else "passed"] += 1
        output += f"== {name}\n{printed}"
    return counts, output


def run_test_folder(stage: str) -> tuple[Counter[str], str]:
    """Run one test folder in its environment; return the counts and pytest's output."""
    python = ensure(environment(TEST_ENVIRONMENTS.get(stage, stage)))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        code, printed = _run_check([str(python), "-m", "pytest", f"tests/{stage}", f"--junitxml={report}"])
        return count_results(report, code), f"== tests/{stage}\n{printed}"


def _run_check(command: Sequence[str]) -> tuple[int, str]:
    done = subprocess.run(
        command, cwd=CHECKOUT, env=checkout_variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def count_results(report: Path, code: int) -> Counter[str]:
    """Count the results in a JUnit XML report; a failed run without a failed test counts as one failure."""
    counts: Counter[str] = Counter()
    if report.exists():
        for suite in ElementTree.parse(report).getroot().iter("testsuite"):
            numbers = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
            failed = numbers["failures"] + numbers["errors"]
            counts["failed"] += failed
            counts["skipped"] += numbers["skipped"]
            counts["passed"] += numbers["tests"] - failed - numbers["skipped"]
    if code and not counts["failed"]:
        counts["failed"] += 1
    return counts


def closing_line(counts: Counter[str]) -> str:
    return f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"


def build_parser() -> argparse.ArgumentParser:
    scripts = "\n".join(f"  {step.command:<16} {step.script}" for step in COMMANDS.values())
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=f"scripts, each with its own --help:\n{scripts}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="run all stages on drawn images and stand-in services")
    demo.add_argument("--root", type=Path, default=Path("demo-run"), help="folder of the demo (default: demo-run)")
    demo.add_argument(
        "--port", type=int, default=DEMO_PORT, help=f"first of the two ports of the stand-ins (default: {DEMO_PORT})"
    )

    test = commands.add_parser("test", help="run the tests, each stage in its own environment")
    test.add_argument("stages", nargs="*", metavar="STAGE", help="test folders, or lint (default: all)")
    test.add_argument(
        "--jobs",
        type=int,
        choices=range(1, 17),
        default=2,
        metavar="N",
        help="parallel test folders (default: 2)",
    )

    run = commands.add_parser("run", help="run the stages with the real services")
    run.add_argument("--root", type=Path, required=True, help="folder of the dataset")
    run.add_argument("--from", dest="first", metavar="STEP", help="first step, by name or stage number")
    run.add_argument("--to", dest="last", metavar="STEP", help="last step, by name or stage number")
    run.add_argument("--config", type=Path, metavar="FILE", help="TOML file with flags for each step")
    run.add_argument("--no-disk-check", dest="disk", action="store_false", help="skip the check of free disk space")
    run.add_argument("--plan", action="store_true", help="print the commands and run none")

    setup = commands.add_parser("setup", help="build environments")
    setup.add_argument("name", metavar="NAME|all", help="an environment, or all")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    name, *arguments = (sys.argv[1:] if argv is None else argv) or [""]
    try:
        if name in COMMANDS:
            run_by_name(COMMANDS[name], arguments)
        if name not in ("", *OWN_COMMANDS) and not name.startswith("-"):
            raise InputError(unknown_name("command", name, [*OWN_COMMANDS, *COMMANDS]))
        args = build_parser().parse_args(argv)
        if args.command == "demo":
            run_demo(args.root, args.port)
        elif args.command == "test":
            return 1 if run_tests(args.stages, args.jobs) else 0
        elif args.command == "run":
            run_stages(args.root, args.first, args.last, args.config, plan=args.plan, disk=args.disk)
        else:
            set_up(args.name)
    except PokefaError as error:
        for problem in problems_of(error):
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or name}: {error.strerror or error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
