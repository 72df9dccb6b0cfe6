"""How runs are called in tables and plots."""

from pathlib import PurePosixPath
from typing import Any


def method_label(method: str, params: dict[str, Any]) -> str:
    """A file by its stem, a registered method with its parameters: `early25-recheck`, `logconf alpha=0.9`."""
    name = PurePosixPath(method).stem if method.endswith(".py") else method
    return " ".join([name, *(f"{key}={_plain(value)}" for key, value in params.items())])


def shorten(text: str, length: int) -> str:
    """`text` in at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
