import time
from types import SimpleNamespace

from experiments.model_clock import ModelClock


def test_only_the_time_between_the_calls_of_the_model_counts() -> None:
    strategy = SimpleNamespace(plugins=["theirs"])
    clock = ModelClock(strategy)
    stop, theirs, start = strategy.plugins
    assert theirs == "theirs"  # its work before and after a call stays outside
    begin = time.perf_counter()
    for step in ("forward", "backward", "update"):
        time.sleep(0.02)
        getattr(start, f"before_{step}")(strategy)
        time.sleep(0.01)
        getattr(stop, f"after_{step}")(strategy)
    outside = 3 * 0.02
    assert 0.03 <= clock.seconds <= time.perf_counter() - begin - outside
