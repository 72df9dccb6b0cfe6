"""Errors of the system in one line: a full disk, a folder that is closed, a database that does not answer."""


def said_by_system(error: Exception) -> str:
    """What the system says, and of which file; empty where the error is another one."""
    if isinstance(error, OSError):
        file = error.filename2 or error.filename  # of two, the first is a draft of the second
        return f"{error.strerror or error}" + (f": {str(file)!r}" if file else "")
    from sqlalchemy.exc import DBAPIError

    return f"the database does not answer: {error.orig}" if isinstance(error, DBAPIError) else ""
