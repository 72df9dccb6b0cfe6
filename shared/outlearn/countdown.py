"""Time that runs down, and stands still in pauses."""

import time
from collections.abc import Callable


class Countdown:
    """A countdown from `seconds`. `clock` is seconds, never going back."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds
        self._begin = clock()
        self._paused_at: float | None = None

    @property
    def left(self) -> float:
        """Seconds until the end; below 0 when it is past."""
        return self._end - self._now()

    @property
    def passed(self) -> float:
        """Seconds since the beginning, without pauses."""
        return self._now() - self._begin

    @property
    def is_paused(self) -> bool:
        return self._paused_at is not None

    def pause(self) -> None:
        """Stand still until told to go on."""
        self._paused_at = self._now()

    def go_on(self) -> None:
        """Run down again."""
        if self._paused_at is not None:
            stood = self._clock() - self._paused_at
            self._begin += stood
            self._end += stood
            self._paused_at = None

    def end(self) -> None:
        """The end is now, or was before."""
        self.go_on()
        self._end = min(self._end, self._clock())

    def _now(self) -> float:
        return self._clock() if self._paused_at is None else self._paused_at
