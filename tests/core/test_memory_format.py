import pytest
import torch
from torch import Tensor, nn

from gift_cl.memory_format import fastest_format


class Net(nn.Module):
    """Its features lie in memory as its inputs do; ``viewed`` needs them contiguous."""

    def __init__(self, viewed: bool) -> None:
        super().__init__()
        self.conv, self.viewed = nn.Conv2d(3, 4, 3), viewed

    def forward(self, images: Tensor) -> Tensor:
        hidden: Tensor = self.conv(images)
        return hidden.view(len(hidden), -1) if self.viewed else hidden.flatten(1)


@pytest.mark.parametrize("num_images", [1, 2])
def test_channels_come_last_where_the_network_allows_it(num_images: int) -> None:
    images = torch.zeros(num_images, 3, 6, 6)
    assert fastest_format(Net(viewed=False), images) is torch.channels_last
    assert fastest_format(Net(viewed=True), images) is torch.contiguous_format


def test_the_network_runs_without_gradients() -> None:
    model, answers = Net(viewed=False), []
    model.register_forward_hook(lambda _module, _inputs, answer: answers.append(answer))
    fastest_format(model, torch.zeros(2, 3, 6, 6))
    assert [answer.requires_grad for answer in answers] == [False]
