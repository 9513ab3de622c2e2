from __future__ import annotations

import pytest
import torch

from experiments.bench_distillers import Setting, main, passes, time_distiller
from gift_cl.models import build_model


def test_the_command_prints_a_row_for_each_distiller(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    try:
        main(["--quick", "--threads", "1"])
    finally:
        torch.set_num_threads(threads)
    said = capsys.readouterr().out
    for name in ("rded", "sre2l", "cda", "dm"):
        assert name in said
    assert said.count("x ") >= 4


def test_the_floor_takes_a_turn_after_each_step() -> None:
    setting = Setting().quick()
    turns: list[int] = []
    for spec, (size, _) in setting.contestants.items():
        turns.clear()
        seconds = time_distiller(setting, spec, size, lambda: turns.append(1))
        steps = 10 if spec.startswith("rded") else setting.steps  # RDED's are classes
        assert len(turns) == 1 + steps
        assert len(seconds) == steps - 1
        assert all(own > 0 and alone > 0 for own, alone in seconds)


def test_images_are_on_the_device_and_the_floor_is_where_its_network_is() -> None:
    assert {each.device.type for each in Setting(device="meta").quick().images} == {"meta"}
    network = build_model("conv3:width=4", in_channels=3, image_size=32, num_classes=10)
    passes(network.to("meta"), forward=9, to_pixels=2)()  # images elsewhere would be an error


def test_the_floor_passes_as_many_images_as_are_asked_for() -> None:
    seen: list[tuple[int, bool]] = []

    class Watched(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build_model("conv3:width=4", in_channels=3, image_size=32, num_classes=10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((len(images), torch.is_grad_enabled()))
            answer: torch.Tensor = self.inner(images)
            return answer

    once = passes(Watched(), forward=40, to_pixels=6)
    seen.clear()
    once()
    assert seen == [(32, False), (8, False), (6, True)]
