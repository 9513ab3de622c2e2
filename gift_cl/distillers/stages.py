"""Work in several stages, told as one."""

from __future__ import annotations

from gift_cl.progress import Progress


class Stages:
    """Tells how far the whole work is, while each stage tells of itself alone.

    Args:
        progress: Told of the whole.
        total: Items of all stages.

    Example:
        >>> stages = Stages(lambda done, total: print(done, "of", total), 30)
        >>> first = stages.start()
        >>> first(10, 20); first(20, 20)
        10 of 30
        20 of 30
        >>> stages.start()(5, 10)
        25 of 30
    """

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def start(self) -> Progress:
        """Begin the next stage, which counts its items from 0."""
        before = self._done

        def tell(done: int, of_these: int) -> None:
            del of_these
            self._done = before + done
            self._progress(self._done, self._total)

        return tell
