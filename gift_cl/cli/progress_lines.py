"""How far work is, in plain lines on the standard error: for log files, where a bar cannot be drawn."""

from __future__ import annotations

import sys
from datetime import timedelta
from time import monotonic

_EVERY_S = 30.0


class ProgressLines:
    """Prints a line now and then, at most every 30 seconds; short work has none.

    Args:
        unit: What is counted.
    """

    def __init__(self, *, unit: str = "images") -> None:
        self._unit = unit
        self._said_s = self._since_s = monotonic()
        self._since_done = self._done = 0  # the speed is that since the line before

    def __call__(self, description: str, done: int, total: int) -> None:
        """Take note of how far the work is, and say it if it is time to."""
        now = monotonic()
        if done == 0 or done < self._done:  # it begins; perhaps anew, as test images after training images
            self._since_s, self._since_done = now, 0
        self._done = done
        if now - self._said_s < _EVERY_S:
            return
        text = f"{description}: {done:,}/{total:,} {self._unit}"
        seconds, count = now - self._since_s, done - self._since_done
        if seconds > 0 and count > 0:
            left = timedelta(seconds=round(max(0, total - done) * seconds / count))
            text += f", {count / seconds:,.0f} {self._unit}/s, {left} left"
        print(text, file=sys.stderr, flush=True)
        self._said_s, self._since_s, self._since_done = now, now, done
