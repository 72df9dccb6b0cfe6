"""Errors of the system in one line: a full disk, a folder that is closed, a database that does not answer, a wrong
variable of the environment."""


def said_by_system(error: Exception) -> str:
    """What the system says, and of which file; empty where the error is another one."""
    if isinstance(error, OSError):
        file = error.filename2 or error.filename  # of two, the first is a draft of the second
        return f"{error.strerror or error}" + (f": {str(file)!r}" if file else "")
    from pydantic import ValidationError
    from sqlalchemy.exc import DBAPIError

    from outlearn.hints import plain
    from outlearn.settings import ServerSettings

    settings: list[type] = [ServerSettings, *ServerSettings.__subclasses__()]
    names = {one.__name__ for one in settings}
    if isinstance(error, ValidationError) and error.title in names:  # options are checked before
        return "; ".join(f"OUTLEARN_{'_'.join(map(str, one['loc'])).upper()}: {plain(one)}" for one in error.errors())
    return f"the database does not answer: {error.orig}" if isinstance(error, DBAPIError) else ""
