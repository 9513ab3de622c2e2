from typing import Any

import torch

from gift_cl.transfer import sent


class Recorded:
    """In the place of a tensor, as there may be no CUDA device."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.calls: list[Any] = []

    def pin_memory(self) -> "Recorded":
        self.calls.append("pinned")
        return self

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Recorded":
        self.calls.append((str(device), non_blocking))
        return self


def test_nothing_waits_for_what_goes_from_the_cpu_to_cuda() -> None:
    tensor: Any = Recorded("cpu")
    sent(tensor, torch.device("cuda:1"))
    assert tensor.calls == ["pinned", ("cuda:1", True)]


def test_other_ways_are_plain_copies() -> None:
    # Without pinned memory, a copy that is not waited for may be read too early.
    for start, end in (("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "meta")):
        tensor: Any = Recorded(start)
        sent(tensor, torch.device(end))
        assert tensor.calls == [(end, False)]


def test_a_tensor_that_is_there_is_not_copied() -> None:
    tensor = torch.ones(2)
    assert sent(tensor, torch.device("cpu")) is tensor
