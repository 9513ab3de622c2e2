import pytest
import torch
from torch import Tensor, nn

from gift_cl.distillers import expert_trajectories
from gift_cl.distillers.expert_trajectories import answers, choose, expert_network, train_expert
from gift_cl.views import Unchanged, View


def make_data(count: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.arange(count) % 3


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def train(
    network: nn.Module,
    *,
    inputs: Tensor | None = None,
    view: View | None = None,
    lr: float = 0.5,
    seed: int = 0,
) -> Tensor:
    return train_expert(
        network,
        make_data()[0] if inputs is None else inputs,
        make_data()[1],
        epochs=3,
        batch_size=4,
        lr=lr,
        view=view or Unchanged(),
        generator=torch.Generator().manual_seed(seed),
    )


# Networks


@pytest.mark.parametrize(
    ("side", "depth"), [(8, 3), (28, 3), (32, 3), (63, 3), (64, 4), (127, 4), (128, 5), (255, 5), (256, 6)]
)
def test_depth_follows_the_size_of_the_images(side: int, depth: int) -> None:
    network = expert_network((1, side, side), 2, width=2, generator=torch.Generator())
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert [module.out_channels for module in convolutions] == [2] * depth
    assert network(torch.zeros(1, 1, side, side)).shape == (1, 2)


def test_all_state_of_a_network_are_parameters() -> None:
    network = expert_network((3, 8, 8), 2, width=4, generator=torch.Generator())
    norms = [module for module in network.modules() if isinstance(module, nn.InstanceNorm2d)]
    assert [(norm.num_features, norm.affine) for norm in norms] == [(4, True)] * 3
    assert not list(network.buffers())


def test_the_generator_alone_draws_the_weights() -> None:
    def first(seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return next(iter(expert_network((1, 8, 8), 2, width=2, generator=generator).parameters())).detach()

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    weights = first(0)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(weights, first(0))
    assert not torch.equal(weights, first(1))


@pytest.mark.parametrize(("height", "width"), [(8, 9), (7, 7)])
def test_images_that_suit_no_network_are_refused(height: int, width: int) -> None:
    with pytest.raises(
        ValueError, match=f"square images of at least 8 pixels a side.*got {height} x {width}"
    ):
        expert_network((1, height, width), 2, width=2, generator=torch.Generator())


# Training


def test_a_trajectory_is_that_of_gradient_descent_by_hand() -> None:
    inputs, targets = make_data()
    weight, bias = (p.detach().double() for p in linear().parameters())
    features, one_hot = inputs.flatten(1).double(), torch.eye(3, dtype=torch.float64)[targets]
    generator = torch.Generator().manual_seed(0)
    expected = [torch.cat([weight.flatten(), bias])]
    for _ in range(3):
        order = torch.randperm(7, generator=generator)
        for batch in (order[:4], order[4:]):
            error = (features[batch] @ weight.mT + bias).softmax(1) - one_hot[batch]
            weight = weight - 0.5 * error.mT @ features[batch] / len(batch)
            bias = bias - 0.5 * error.mean(0)
        expected.append(torch.cat([weight.flatten(), bias]))
    torch.testing.assert_close(train(linear()).double(), torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_a_trajectory_leads_from_the_fresh_network_to_the_trained_one() -> None:
    network = linear()
    fresh = nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    points = train(network)
    assert points.shape == (4, 195)
    assert torch.equal(points[0], fresh)
    assert torch.equal(points[-1], nn.utils.parameters_to_vector(network.parameters()))
    assert not points.requires_grad


class Doubled:
    spec = "doubled"

    def __call__(self, inputs: Tensor, generator: torch.Generator) -> Tensor:
        return 2 * inputs


def test_networks_see_the_view_of_each_batch() -> None:
    doubled = train(linear(), view=Doubled())
    by_hand = train(linear(), inputs=2 * make_data()[0])
    torch.testing.assert_close(doubled, by_hand)
    assert not torch.equal(doubled, train(linear()))


def test_another_seed_gives_another_order() -> None:
    assert torch.equal(train(linear()), train(linear()))
    assert not torch.equal(train(linear()), train(linear(), seed=1))


def test_progress_counts_the_images_of_each_epoch() -> None:
    inputs, targets = make_data()
    told: list[tuple[int, int]] = []
    train_expert(
        linear(),
        inputs,
        targets,
        epochs=2,
        batch_size=100,
        lr=0.1,
        view=Unchanged(),
        generator=torch.Generator(),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(7, 14), (14, 14)]


def test_an_expert_that_diverges_is_refused() -> None:
    with pytest.raises(
        ValueError, match="diverged in epoch 2 at the learning rate 1e\\+38. Lower `expert_lr`"
    ):
        train(linear(), lr=1e38)


def test_answers_in_batches_are_those_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expert_trajectories, "images_at_once", lambda images, device: 3)
    network, (inputs, _) = linear(), make_data()
    logits = answers(network, inputs)
    torch.testing.assert_close(logits, network(inputs).detach())
    assert not logits.requires_grad


# Choice

# Three experts, five images, two classes; the first two images are of class 0.
TARGETS = torch.tensor([0, 0, 1, 1, 1])
ANSWERED = torch.tensor(
    [
        [[1.0, 0.0], [0.0, 2.0], [0.0, 3.0], [4.0, 0.0], [0.0, 5.0]],
        [[0.0, 1.0], [0.0, 4.0], [0.0, 7.0], [0.0, 8.0], [9.0, 0.0]],
        [[3.0, 0.0], [0.0, 6.0], [2.0, 0.0], [0.0, 4.0], [0.0, 1.0]],
    ]
)


def test_labels_are_the_mean_of_the_experts_that_are_right() -> None:
    indices, logits = choose(ANSWERED, TARGETS, 3, torch.Generator())
    by_image = {int(i): row.tolist() for i, row in zip(indices, logits, strict=True)}
    assert by_image == {
        0: [2.0, 0.0],  # the second is wrong
        1: [0.0, 4.0],  # all are wrong
        2: [0.0, 5.0],  # the third is wrong
        3: [0.0, 6.0],  # the first is wrong
        4: [0.0, 3.0],  # the second is wrong
    }


def test_images_that_the_first_expert_gets_right_come_first() -> None:
    orders = set()
    for seed in range(20):
        indices, _ = choose(ANSWERED, TARGETS, 3, torch.Generator().manual_seed(seed))
        assert indices[:2].tolist() == [0, 1]
        assert int(indices[4]) == 3
        orders.add(tuple(indices[2:4].tolist()))
    assert orders == {(2, 4), (4, 2)}  # at random among themselves


def test_images_are_chosen_class_after_class_as_many_as_there_are() -> None:
    indices, logits = choose(ANSWERED, TARGETS, 1, torch.Generator())
    assert TARGETS[indices].tolist() == [0, 1]
    assert logits.shape == (2, 2)
    many, _ = choose(ANSWERED, TARGETS, 9, torch.Generator())
    assert TARGETS[many].tolist() == [0, 0, 1, 1, 1]
    assert sorted(many.tolist()) == [0, 1, 2, 3, 4]
