from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gift_cl.memory import ExemplarMemory
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.rehearsal import Rehearsal
from gift_cl.students import optimizer_like, reinitialized, train_on_memory

NORMALIZATION = Normalization((0.5,), (0.25,))


def make_images(count: int = 12) -> tuple[Tensor, Tensor]:
    """Class c is bright in its own row of the image."""
    labels = torch.arange(count) % 3
    images = torch.randint(
        0, 60, (count, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images[torch.arange(count), 0, 2 * labels] = 250
    return images, labels


def make_rehearsal(loss: str = "gift", per_class: int = 4) -> Rehearsal:
    memory = ExemplarMemory(per_class=per_class, exemplars="random")
    memory.update(*make_images(), None)
    rehearsal = Rehearsal(memory, loss=loss, normalization=NORMALIZATION)
    rehearsal.open((0, 1, 2), "cpu")
    return rehearsal


def make_student(spec: str = "mlp:hidden=16") -> nn.Module:
    torch.manual_seed(1)
    return build_model(spec, in_channels=1, image_size=8, num_classes=3)


def train(student: nn.Module, rehearsal: Rehearsal, *, lr: float = 0.3, **options: Any) -> float:
    optimizer = torch.optim.SGD(student.parameters(), lr=lr)
    return train_on_memory(student, rehearsal, optimizer, **({"epochs": 30, "batch_size": 5} | options))


@pytest.mark.parametrize("loss", ["gift", "ce", "cosine"])
@pytest.mark.parametrize("spec", ["mlp:hidden=16", "conv3:width=8"])
def test_a_student_learns_a_separable_memory(loss: str, spec: str) -> None:
    rehearsal, student = make_rehearsal(loss), make_student(spec)
    first = train(student, rehearsal, epochs=1)
    last = train(student, rehearsal)
    assert last < first
    images, labels = make_images(30)  # the first 12 are in the memory
    guesses = student.eval()(NORMALIZATION.apply(images.float() / 255)).argmax(1)
    assert float((guesses == labels).float().mean()) > 0.95


def test_a_student_sees_each_exemplar_once_an_epoch_and_nothing_else() -> None:
    rehearsal, seen = make_rehearsal(), []
    student = make_student()
    student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    train(student, rehearsal, epochs=2, batch_size=4)
    assert [len(batch) for batch in seen] == [4] * 6
    dataset = rehearsal.memory.dataset
    assert dataset is not None
    exemplars = NORMALIZATION.apply(dataset.images.float() / 255).flatten(1)
    for epoch in (seen[:3], seen[3:]):
        shown = torch.cat(epoch).flatten(1)
        torch.testing.assert_close(shown[shown.sum(1).argsort()], exemplars[exemplars.sum(1).argsort()])


def test_a_batch_is_no_larger_than_the_memory() -> None:
    sizes: list[int] = []
    student = make_student()
    student.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    train(student, make_rehearsal(per_class=2), epochs=2, batch_size=100)
    assert sizes == [6, 6]


def test_the_learning_rate_falls_to_zero() -> None:
    student = make_student()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    train_on_memory(student, make_rehearsal(), optimizer, epochs=3, batch_size=4)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-8)


def test_the_mean_loss_of_the_last_epoch_comes_back() -> None:
    rehearsal, student = make_rehearsal("ce"), make_student()
    loss = train(student, rehearsal, lr=0.0, epochs=2, batch_size=12)
    dataset = rehearsal.memory.dataset
    assert dataset is not None
    logits = student(NORMALIZATION.apply(dataset.images.float() / 255)).detach()
    assert loss == pytest.approx(float(nn.functional.cross_entropy(logits, dataset.labels)))


def test_the_student_is_left_in_training_mode() -> None:
    student = make_student().eval()
    train(student, make_rehearsal(), epochs=1)
    assert student.training


def test_a_loss_that_is_not_finite_stops_the_training_with_the_cure() -> None:
    with pytest.raises(FloatingPointError, match="not finite. Lower the learning rate"):
        train(make_student(), make_rehearsal("ce"), lr=1e30)


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}])
def test_training_for_nothing_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least one of `epochs`, of `batch_size` and of exemplars"):
        train(make_student(), make_rehearsal(), **options)


def test_an_empty_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="of exemplars, got 30, 5 and 0"):
        train(make_student(), Rehearsal(ExemplarMemory(per_class=1)))


def test_a_memory_that_is_not_open_is_refused() -> None:
    rehearsal = make_rehearsal()
    rehearsal.memory.resize(2)
    with pytest.raises(RuntimeError, match="not open"):
        train(make_student(), rehearsal)


@pytest.mark.parametrize("spec", ["mlp:hidden=8", "conv3:width=8", "conv3:width=8,norm=instance"])
def test_a_fresh_copy_follows_the_seed_alone(spec: str) -> None:
    model = make_student(spec)
    fresh = [reinitialized(model, seed=seed).state_dict() for seed in (3, 3, 4)]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    fresh.append(reinitialized(model, seed=3).state_dict())
    for other in (fresh[1], fresh[3]):
        for name, value in fresh[0].items():
            assert torch.equal(value, other[name]), name
    assert not torch.equal(fresh[0]["classifier.weight"], fresh[2]["classifier.weight"])


def test_a_fresh_copy_forgets_running_statistics_and_leaves_the_model() -> None:
    model = make_student("conv3:width=8")
    model(torch.randn(4, 1, 8, 8) + 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fresh = reinitialized(model, seed=0)
    assert any(float(value.abs().max()) > 0.1 for name, value in before.items() if "running_mean" in name)
    for name, value in fresh.state_dict().items():
        if "running_mean" in name or "num_batches" in name:
            assert (value == 0).all()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert fresh.training
    assert all(p.requires_grad for p in fresh.parameters())


def test_the_global_random_state_is_restored() -> None:
    model = make_student()
    before = torch.random.get_rng_state()
    reinitialized(model, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_module_that_cannot_forget_is_refused() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(3))

    with pytest.raises(TypeError, match=r"`reset_parameters` of `1`, which holds \['factor'\]"):
        reinitialized(nn.Sequential(nn.Linear(2, 3), Scale()), seed=0)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_an_optimizer_like_another_has_its_settings(kind: Any) -> None:
    optimizer = kind(make_student().parameters(), lr=0.25, weight_decay=0.125)
    student = make_student()
    other = optimizer_like(optimizer, student)
    assert type(other) is kind
    assert (other.param_groups[0]["lr"], other.param_groups[0]["weight_decay"]) == (0.25, 0.125)
    owned = {id(p) for group in other.param_groups for p in group["params"]}
    assert owned == {id(p) for p in student.parameters()}


def test_an_optimizer_like_another_starts_with_its_first_learning_rate() -> None:
    optimizer = torch.optim.SGD(make_student().parameters(), lr=0.25, momentum=0.5)
    train_on_memory(make_student(), make_rehearsal(), optimizer, epochs=1, batch_size=4)
    other = optimizer_like(optimizer, make_student())
    assert (other.param_groups[0]["lr"], other.param_groups[0]["momentum"]) == (0.25, 0.5)
