"""How much of a training run is the model's own: forward, backward and optimiser."""

from __future__ import annotations

import time
from typing import Any

from avalanche.core import SupervisedPlugin


class ModelClock:
    """Seconds in forward, backward and update of a strategy, summed over its training steps.

    Loaders, losses and plugins are outside. On a GPU the kernels run on after the call, so the number
    means something on the CPU only.

    Args:
        strategy: Watched from now on.
    """

    def __init__(self, strategy: Any) -> None:
        self.seconds = 0.0
        self._start = 0.0
        strategy.plugins.insert(0, _Stop(self))  # before all others after a call,
        strategy.plugins.append(_Start(self))  # and after all others before one

    def start(self) -> None:
        """The model begins to work."""
        self._start = time.perf_counter()

    def stop(self) -> None:
        """The model is done."""
        self.seconds += time.perf_counter() - self._start


class _Start(SupervisedPlugin):
    def __init__(self, clock: ModelClock) -> None:
        super().__init__()
        self.clock = clock

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.clock.start()

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.clock.start()

    def before_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.clock.start()


class _Stop(SupervisedPlugin):
    def __init__(self, clock: ModelClock) -> None:
        super().__init__()
        self.clock = clock

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.clock.stop()

    def after_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.clock.stop()

    def after_update(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.clock.stop()
