"""How runs, times and texts of others are written on screens and pages."""

from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Any

from outlearn.printable import printable


def method_label(method: str, params: dict[str, Any]) -> str:
    """A file by its stem, a registered method with its parameters: `early25-recheck`, `logconf alpha=0.9`."""
    name = PurePosixPath(method).stem if method.endswith(".py") else method
    return " ".join([name, *(f"{key}={_plain(value)}" for key, value in params.items())])


def shorten(text: str, length: int) -> str:
    """`text` in at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def duration(seconds: float) -> str:
    """Such as `1 min 58 s` or `3 h 20 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [(hours, "h"), (minutes, "min"), (0 if hours else rest, "s")]
    return " ".join(f"{value} {unit}" for value, unit in parts if value) or "0 s"


def failures(messages: Iterable[str]) -> str:
    """Such as `3 failed (No space left on device)`: of several messages the most common one. Empty for none."""
    counts = Counter(messages)
    if not counts:
        return ""
    [(message, count)] = counts.most_common(1)
    often = "" if count == counts.total() else f"{count} of them: "
    return f"{counts.total()} failed ({often}{shorten(' '.join(clean(message).split()), 200)})"


def clean(text: str) -> str:
    """Text of others without control characters, which could take over the terminal."""
    return printable(text, keep="\n", instead="")


def _plain(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value) or "''"
