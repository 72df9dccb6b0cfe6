"""The errors that a user or an agent can act on. Every message names the value and says what to do next."""

import errno
import sqlite3
from collections.abc import Iterator


class OutlearnError(Exception):
    """Something the caller can mend. Tool servers pass its message on; anything else stays on the server."""


class ConfigError(OutlearnError):
    """A setting, a token file or an environment variable is missing or wrong."""


class PluginError(OutlearnError):
    """A plugin is unknown, is registered twice, or fails to load."""


class NotFoundError(OutlearnError):
    """No such task, method, run, thread, file or snapshot."""


class InvalidInputError(OutlearnError):
    """The input has the right type but an impossible value."""


class PermissionDeniedError(OutlearnError):
    """The caller may not do this: another agent's run, a path outside the workspace, an operator's tool."""


class ConflictError(OutlearnError):
    """The state changed under the caller, or the thing exists already."""


class BudgetError(OutlearnError):
    """A budget is used up; nothing was charged."""


class MethodError(OutlearnError):
    """A method raised, ran too long, or returned no usable student."""


class IntegrityError(OutlearnError):
    """A signature, a hash or a fingerprint does not match: the artifact was changed or belongs elsewhere."""


class OutdatedError(IntegrityError):
    """Another version of outlearn, older or newer, signed this: it is not accepted, and need not be forged."""


class ToolRefusedError(OutlearnError):
    """A tool answered with an error that the researcher can act on; the message is the tool's."""


class ServerUnreachableError(OutlearnError):
    """A tool server does not answer. The call may or may not have taken effect."""


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The errors inside of an exception group, or the error itself where it is none."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves(one)
    else:
        yield error


def is_full_disk(error: BaseException) -> bool:
    """Whether an error of the system, of SQLite, or of SQLAlchemy over SQLite, says that a disk or a quota is full."""
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error):
        return getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
