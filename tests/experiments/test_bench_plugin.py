from experiments.bench_plugin import digits, strategies_of, time_online, time_steps
from experiments.quiet import quiet_avalanche


def test_every_strategy_and_label_regime_is_timed() -> None:
    setting = digits()
    with quiet_avalanche():
        steps = time_steps(setting, rounds=1)
    assert steps.keys() == strategies_of(setting).keys()
    assert {"Replay (Avalanche)", "DER (Avalanche)", "GIFT, hard", "GIFT, online"} <= steps.keys()
    assert all(milliseconds > 0 for milliseconds in steps.values())


def test_tiny_experiences_cost_the_same_at_the_end_of_a_stream() -> None:
    with quiet_avalanche():
        times = time_online(digits())
    # Replay's grow several times over; the bound leaves room for a busy machine.
    assert all(end < 3 * start for name, (start, end) in times.items() if name.startswith("GIFT"))
