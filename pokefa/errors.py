"""Exceptions that end a run, each with its exit code.

Every message is one line: what is wrong, which value, and what to do about it.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 3
EXIT_INTERRUPTED = 130


class PokefaError(Exception):
    """A run cannot go on; the message is one line for the user."""

    exit_code = EXIT_FAILED


class InputError(PokefaError):
    """Wrong usage or wrong input: a missing ledger, a missing column, a value out of range."""

    exit_code = EXIT_USAGE


class RunError(PokefaError):
    """No further image can succeed, say because a key was refused: raised in a worker it ends the run.

    Every other error of a worker costs its own image and no more.
    """


class BudgetReached(RunError):
    """The run stopped on purpose: a budget or a quota that the user set has been reached."""

    exit_code = EXIT_STOPPED


class Interrupted(RunError):
    """Ctrl-C or SIGTERM: what was finished is saved, the rest is left for the next run."""

    exit_code = EXIT_INTERRUPTED


class InputErrors(InputError):
    """Several things are wrong with the input: each of `problems` is one line, and all are named at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class ImageError(PokefaError):
    """An image that cannot be used; the message starts with its reason slug.

    Slugs of `pokefa.images`: `missing_file`, `empty_file`, `too_many_bytes`, `too_many_pixels`, `too_many_scans`,
    `too_many_segments`, `too_many_chunks`, `not_an_image`, `unsupported_format`, `truncated`. Of
    `pokefa.images.decoding`, and perhaps other with another limit or more memory: `decode_timeout`, `decode_memory`,
    `decode_crash`.
    """

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(f"{slug}: {detail}")
        self.slug = slug
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.slug, self.detail)  # so that it comes whole out of a worker process


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, for a one-line message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def one_line(error: BaseException) -> str:
    """Return an error as one line: our own errors by their message, others with their type."""
    if isinstance(error, PokefaError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"the library {error.name} is not installed here: install the stage's file of requirements/, or run it "
            "through pipeline.py"
        )
    return f"{type(error).__name__}: {first_line(error)}"
