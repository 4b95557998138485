"""Exceptions that end a run, each with its exit code.

Every message is one line: what is wrong, which value, and how to fix it.
"""

from __future__ import annotations

from collections.abc import Sequence

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_STOPPED = 3
EXIT_INTERRUPTED = 130


class PokefaError(Exception):
    """A run cannot continue; the message is one line for the user."""

    exit_code = EXIT_FAILED


class InputError(PokefaError):
    """Wrong usage or input: a missing ledger, a missing column, a value out of range."""

    exit_code = EXIT_USAGE


class RunError(PokefaError):
    """No further image can succeed, for example because a key was refused.

    Raised in a worker, it ends the run. Any other error in a worker fails only its own image.
    """


class BudgetReached(RunError):
    """The run reached a budget or a quota that the user set, and stopped."""

    exit_code = EXIT_STOPPED


class Interrupted(RunError):
    """Ctrl-C or SIGTERM: finished work is saved, and the rest is left for the next run."""

    exit_code = EXIT_INTERRUPTED


class InputErrors(InputError):
    """Several problems with the input, reported together; each of `problems` is one line."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class ImageError(PokefaError):
    """An image that cannot be used; the message starts with its reason slug.

    Slugs of `pokefa.images`: `missing_file`, `empty_file`, `too_many_bytes`, `too_many_pixels`, `too_many_scans`,
    `too_many_segments`, `too_many_chunks`, `not_an_image`, `unsupported_format`, `truncated`. Slugs of
    `pokefa.images.decoding`, which a higher limit or more memory may avoid: `decode_timeout`, `decode_memory`,
    `decode_crash`.
    """

    def __init__(self, slug: str, detail: str) -> None:
        super().__init__(f"{slug}: {detail}")
        self.slug = slug
        self.detail = detail

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (self.slug, self.detail)  # so that it can be pickled


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, for a one-line message."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def one_line(error: BaseException) -> str:
    """Return an error as one line: a PokefaError as its message, any other with its type."""
    if isinstance(error, PokefaError):
        return str(error)
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"the library {error.name} is not installed here: install the stage's file in requirements/, or run the "
            "script through pipeline.py"
        )
    return f"{type(error).__name__}: {first_line(error)}"
