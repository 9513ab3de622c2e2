import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from gift_cl.distillers.trajectory_matching import Gradients, Step, Student, matching_loss
from gift_cl.models import ConvNet
from gift_cl.views import DSA, apply_dsa


class Logistic(nn.Module):
    """Two logits of one pixel: the pixel times two weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) * self.weight


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return ConvNet(3, 2, 8, 3, width=4, norm="instance").double()


def smooth() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(128, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def point_of(network: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(network.parameters()).detach()


def make(network: nn.Module, *, batches: list[list[int]], lr: float = 0.3) -> tuple[Student, Tensor, Tensor]:
    """A student on seven images with a view in each step, and the two points of an expert."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(7, 2, 8, 8, dtype=torch.float64, generator=generator)
    logits = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    steps = []
    for indices in batches:
        parameters = DSA(form="one").draw(len(indices), 8, 8, generator)
        steps.append(Step(torch.tensor(indices), partial(apply_dsa, parameters=parameters)))
    start = point_of(network)
    target = start + 0.1 * torch.randn(len(start), dtype=torch.float64, generator=generator)
    return Student(network, images, logits, torch.tensor(lr, dtype=torch.float64), steps), start, target


def unrolled(student: Student, start: Tensor, target: Tensor) -> tuple[Tensor, Gradients]:
    """The loss through the graph of all steps at once, and what torch says of it."""
    images, logits = student.images.clone().requires_grad_(), student.logits.clone().requires_grad_()
    lr = student.lr.clone().requires_grad_()
    point = start.clone().requires_grad_()
    for indices, view in student.steps:
        parameters, position = {}, 0
        for name, parameter in student.network.named_parameters():
            piece = point[position : position + parameter.numel()]
            parameters[name], position = piece.view_as(parameter), position + parameter.numel()
        answers = functional_call(student.network, parameters, (view(images[indices]),))
        loss = -(logits[indices].softmax(1) * answers.log_softmax(1)).sum(1).mean()
        (gradient,) = torch.autograd.grad(loss, point, create_graph=True)
        point = point - lr * gradient
    loss = ((point - target) ** 2).sum() / ((start - target) ** 2).sum()
    return loss, Gradients(*torch.autograd.grad(loss, [images, logits, lr]))


@pytest.mark.parametrize("network", [convnet, smooth])
@pytest.mark.parametrize(
    "batches", [[[0, 1, 2, 3, 4, 5, 6]], [[0, 2, 4], [6, 1, 3], [5]] * 2], ids=["one step", "uneven batches"]
)
def test_loss_and_gradients_are_those_of_the_unrolled_graph(
    network: Callable[[], nn.Module], batches: list[list[int]]
) -> None:
    student, start, target = make(network(), batches=batches)
    loss, expected = unrolled(student, start, target)
    points = student.train(start)
    gradients = student.gradients(points, target)
    torch.testing.assert_close(matching_loss(points[-1], start, target), loss.detach())
    for got, wanted in zip(gradients, expected, strict=True):
        assert float(wanted.abs().max()) > 1e-6
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-12)


def test_a_batch_counts_for_where_later_gradients_are_taken() -> None:
    student, start, target = make(smooth(), batches=[[0, 1], [2, 3]])
    points = student.train(start)
    exact = student.gradients(points, target).images
    first = Student(student.network, student.images, student.logits, student.lr, student.steps[:1])
    # As TESLA has it: the first batch moves the end by its own step alone.
    shortcut = first.gradients([points[0], points[2]], target).images
    assert float((exact - shortcut)[:2].abs().max()) > 0.01 * float(exact[:2].abs().max())


def test_pinned_step() -> None:
    identity: Callable[[Tensor], Tensor] = torch.Tensor.clone
    logits = torch.tensor([[0.0, math.log(3.0)]])  # softmax 1/4, 3/4; the student says 1/2, 1/2
    step = Step(torch.tensor([0]), identity)
    student = Student(Logistic(), torch.ones(1, 1, 1, 1), logits, torch.tensor(1.0), [step])
    start, target = torch.zeros(2), torch.tensor([-1.0, 1.0])
    points = student.train(start)
    torch.testing.assert_close(points[1], torch.tensor([-0.25, 0.25]))
    torch.testing.assert_close(matching_loss(points[1], start, target), torch.tensor(0.5625))
    images, by_logits, lr = student.gradients(points, target)
    torch.testing.assert_close(images.flatten(), torch.tensor([-0.375]))
    torch.testing.assert_close(by_logits, torch.tensor([[0.28125, -0.28125]]))
    torch.testing.assert_close(lr, torch.tensor(-0.375))


def test_an_image_that_no_step_shows_has_no_gradient() -> None:
    student, start, target = make(smooth(), batches=[[0, 5], [5, 2]])
    gradients = student.gradients(student.train(start), target)
    for gradient in (gradients.images, gradients.logits):
        seen = gradient.flatten(1).abs().sum(1) > 0
        assert seen.nonzero().flatten().tolist() == [0, 2, 5]


def test_training_is_plain_gradient_descent() -> None:
    student, start, _ = make(smooth(), batches=[[0, 1, 2], [3, 4]])
    network = smooth()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.3)
    points = student.train(start)
    for (indices, view), point in zip(student.steps, points, strict=False):
        torch.testing.assert_close(point, point_of(network))
        optimizer.zero_grad()
        nn.functional.cross_entropy(
            network(view(student.images[indices])), student.logits[indices].softmax(1)
        ).backward()
        optimizer.step()
    torch.testing.assert_close(points[-1], point_of(network))


class Meter:
    """Bytes that graphs keep for their backward pass, now and at most."""

    def __init__(self) -> None:
        self.now = self.peak = 0


class Kept:
    def __init__(self, tensor: Tensor, meter: Meter) -> None:
        self.tensor, self.meter = tensor, meter
        meter.now += tensor.nbytes
        meter.peak = max(meter.peak, meter.now)

    def __del__(self) -> None:
        self.meter.now -= self.tensor.nbytes


def matched_gradients(student: Student, start: Tensor, target: Tensor) -> Gradients:
    return student.gradients(student.train(start), target)


def peak_of(work: Callable[[], object]) -> int:
    meter = Meter()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: Kept(t, meter), lambda kept: kept.tensor):
        work()
    return meter.peak


def test_graphs_take_the_same_memory_however_many_steps_there_are() -> None:
    matched, at_once = [], []
    for num_steps in (3, 9):
        student, start, target = make(convnet(), batches=[[0, 1, 2]] * num_steps)
        matched.append(peak_of(partial(matched_gradients, student, start, target)))
        at_once.append(peak_of(partial(unrolled, student, start, target)))
    assert 0 < matched[0] == matched[1] < at_once[0]
    assert at_once[1] > 2 * at_once[0]


def test_nothing_that_is_given_is_changed() -> None:
    network = convnet()
    student, start, target = make(network, batches=[[0, 1], [2, 3]])
    given = [start, target, student.images, student.logits, student.lr, *network.parameters()]
    before = [tensor.detach().clone() for tensor in given]
    points = student.train(start)
    student.gradients(points, target)
    for tensor, old in zip(given, before, strict=True):
        assert torch.equal(tensor, old)
        assert tensor.grad is None
    assert not any(point.requires_grad for point in points)


def test_loss_is_one_for_who_stays_and_zero_for_who_arrives() -> None:
    start, target = torch.tensor([1.0, 2.0]), torch.tensor([0.0, -1.0])
    assert float(matching_loss(start, start, target)) == 1
    assert float(matching_loss(target, start, target)) == 0
    # Three times the distance, to the other side.
    assert float(matching_loss(4 * start - 3 * target, start, target)) == pytest.approx(16)


def test_an_expert_that_stood_still_gives_no_finite_loss() -> None:
    start = torch.tensor([1.0, 2.0])
    assert not math.isfinite(float(matching_loss(torch.zeros(2), start, start)))
