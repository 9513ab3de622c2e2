import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gift_cl.evaluation import parts
from gift_cl.evaluation.batch_norms import SharedBatchNorms
from gift_cl.evaluation.processes import Processes, current, joined


@given(num_rows=st.integers(0, 40), count=st.integers(1, 9))
def test_shares_follow_each_other_and_differ_by_at_most_one_row(num_rows: int, count: int) -> None:
    rows = list(range(num_rows))
    shares = [rows[Processes(rank=rank, count=count).share(num_rows)] for rank in range(count)]
    assert [row for share in shares for row in share] == rows
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1


def test_each_of_several_processes_has_a_card_of_its_own() -> None:
    assert Processes(rank=5, count=8, local_rank=1).device("cuda") == "cuda:1"
    assert Processes(rank=5, count=8, local_rank=1).device("cpu") == "cpu"
    with pytest.raises(
        ValueError, match="cuda for 2 processes, each of which takes a card .* got cuda:1. Choose"
    ):
        Processes(count=2).device("cuda:1")


def test_a_process_alone_may_name_any_card() -> None:
    assert [Processes().device(name) for name in ("cuda", "cuda:3", "mps")] == ["cuda", "cuda:3", "mps"]


def test_devices_are_found_for_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda *_, device: asked.append(device))
    monkeypatch.setattr(parts, "current", lambda: Processes(rank=1, count=2, local_rank=1))
    assert parts.find_device("auto") == "cuda:1"
    assert asked == ["cuda:1"]


def test_a_process_alone_has_nobody_to_talk_to() -> None:
    with joined() as processes:
        assert processes.count == current().count == 1
        assert processes.is_first
        assert processes.tell("a") == "a"
        assert processes.sum(torch.ones(2)).tolist() == [1, 1]
        with processes.first_ahead(), pytest.raises(LookupError), processes.together():
            raise LookupError


@pytest.fixture
def norm() -> nn.BatchNorm2d:
    torch.manual_seed(0)
    return nn.BatchNorm2d(2)


def test_batch_norms_of_a_process_alone_are_left_as_they_are(norm: nn.BatchNorm2d) -> None:
    with SharedBatchNorms(norm, Processes()):
        assert "forward" not in vars(norm)


def test_batch_norms_get_their_forward_pass_back(norm: nn.BatchNorm2d) -> None:
    names = list(norm.state_dict())
    with SharedBatchNorms(norm, Processes(count=2)):
        assert "forward" in vars(norm)
        assert list(norm.state_dict()) == names
    assert "forward" not in vars(norm)


@pytest.mark.parametrize("is_training", [True, False])
def test_batch_norms_see_their_own_rows_when_not_shared_or_not_training(
    norm: nn.BatchNorm2d, is_training: bool
) -> None:
    inputs = torch.randn(3, 2, 4, 4)
    expected = nn.BatchNorm2d(2).train(is_training)(inputs)
    norm.train(is_training)
    with SharedBatchNorms(norm, Processes(count=2)) as norms:
        norms.are_shared = not is_training
        assert torch.equal(norm(inputs), expected)
