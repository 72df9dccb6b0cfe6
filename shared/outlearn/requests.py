"""Request ids: a call that is made again with its id, because the answer was lost, happens once."""

from typing import Annotated

from pydantic import Field

from outlearn.errors import InvalidInputError

MAX_REQUEST_ID = 100
RequestId = Annotated[
    str | None, Field(description="Any name you choose for this call: calling again with it happens once.")
]


def check_request_id(request_id: str) -> str:
    """The id. Raises InvalidInputError where it is empty, too long or has control characters."""
    if not 0 < len(request_id) <= MAX_REQUEST_ID or not request_id.isprintable():
        raise InvalidInputError(f"request_id {request_id[:80]!r} must have 1 to {MAX_REQUEST_ID} printable characters")
    return request_id
