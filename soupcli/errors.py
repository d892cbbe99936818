"""Everything that can go wrong, as one tree.

    SoupError                    exit code 2: the user's input
    ├── UsageError               a flag, an argument, an environment variable
    ├── RecipeError              soup.yaml: one or many problems, each with file:line:column
    ├── CheckpointError          a file that cannot be read as a checkpoint
    │   ├── CheckpointErrors     several such files: one line for each
    │   └── MixError             checkpoints that are fine alone and cannot be mixed
    ├── NetworkError             a network that cannot be built, or that weights do not fit
    ├── ValidationError          a validation set or metric that cannot be used
    ├── OutputError              a soup that cannot be written where it should go
    ├── ProcessError             another process of the same run that ended or does not answer
    └── MissingExtra             an optional package that is absent or broken
    SoupFault                    exit code 3: a promise of ours that did not hold

An error is one line (`str(error)`) that names the file, the key or tensor and both values, and a `hint`:
what to do about it. It is raised where it is found and printed in one place, `soupcli.output.console`.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence


class SoupError(Exception):
    """The user's input cannot be used; `hint` says what to do."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(SoupError):
    """A flag, an argument or an environment variable."""


class RecipeError(SoupError):
    """One or many problems of a recipe; `str()` has one line for each."""


class CheckpointError(SoupError):
    """A file that cannot be read as a checkpoint."""


class CheckpointErrors(CheckpointError):
    """Several files that cannot be read as checkpoints; `str()` has one line for each."""

    def __init__(self, errors: Sequence[CheckpointError], total: int) -> None:
        reasons = (f"{error} ({error.hint})" if error.hint else str(error) for error in errors)
        lines = ["  " + reason.strip().replace("\n", "\\n") for reason in reasons]
        super().__init__(
            "\n".join([f"{len(errors)} of {total} checkpoints cannot be opened:", *lines]),
            hint="mend them, or leave them out",
        )


class MixError(CheckpointError):
    """Checkpoints that are fine by themselves and cannot be mixed."""


class NetworkError(SoupError):
    """A network that cannot be built, or that the weights do not fit."""


class ValidationError(SoupError):
    """A validation set or a metric that cannot be used."""


class OutputError(SoupError):
    """A soup that cannot be written where it should go."""


class ProcessError(SoupError):
    """Another process of the same run ended or does not answer."""


class MissingExtra(SoupError):
    """An optional package that is absent or broken."""

    def __init__(self, package: str, extra: str, cause: Exception) -> None:
        first_line = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        absent = isinstance(cause, ModuleNotFoundError) and cause.name == package
        reason = "is not installed" if absent else f"does not import: {first_line}"
        super().__init__(f"{package} {reason}", hint=f"pip install 'model-soup[{extra}]'")


ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, None)


def is_of_system(error: BaseException | None) -> bool:
    """Whether the error comes of a system call that failed, and says nothing of what is in the file."""
    while error is not None:
        if isinstance(error, OSError | MemoryError):
            return getattr(error, "errno", 0) not in ABSENT
        error = error.__cause__
    return False


class SoupFault(Exception):
    """A promise of this program that did not hold; ends with exit code 3."""
