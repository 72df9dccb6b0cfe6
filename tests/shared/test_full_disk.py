"""A full disk is told from other errors, whoever says it."""

import errno
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from outlearn.errors import is_full_disk

SMALL = "pragma max_page_count = 1"
LARGE = "create table notes as select zeroblob(100000)"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_the_systems_error_is_known() -> None:
    with pytest.raises(OSError, match="No space left") as error:
        Path("/dev/full").write_text("x")
    assert is_full_disk(error.value)


def test_sqlites_error_is_known_and_through_sqlalchemy_too() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute(SMALL)
    with pytest.raises(sqlite3.OperationalError) as bare:
        connection.execute(LARGE)
    connection.close()
    engine = create_engine("sqlite://")
    with engine.connect() as through:
        through.exec_driver_sql(SMALL)
        with pytest.raises(OperationalError) as wrapped:
            through.exec_driver_sql(LARGE)
    engine.dispose()
    assert is_full_disk(bare.value)
    assert is_full_disk(wrapped.value)


def test_other_errors_are_others() -> None:
    others = (OSError(errno.EACCES, "closed"), sqlite3.OperationalError("database is locked"), ValueError("full"))
    assert not any(map(is_full_disk, others))
    assert is_full_disk(OSError(errno.EDQUOT, "Disk quota exceeded"))
