import pytest
import torch
from torch import Tensor, nn

from gift_cl.distillers.gradient_matching import gradient_distance, matched_weights, weight_gradients
from gift_cl.models import build_model


def make_network(spec: str = "conv3:width=4,norm=instance", *, num_classes: int = 3) -> nn.Module:
    torch.manual_seed(0)
    network = build_model(spec, in_channels=1, image_size=8, num_classes=num_classes)
    return network.eval().requires_grad_(False)


def make_inputs(count: int = 5, seed: int = 0) -> Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_kernels_and_matrices_are_matched_but_biases_and_scales_are_not() -> None:
    assert list(matched_weights(make_network())) == [
        "layers.conv.0.weight",
        "layers.conv.1.weight",
        "layers.conv.2.weight",
        "classifier.weight",
    ]


def test_a_network_without_matrices_is_refused() -> None:
    with pytest.raises(ValueError, match="a network with kernels or matrices, got BatchNorm2d"):
        matched_weights(nn.BatchNorm2d(3))


def test_gradients_are_those_of_the_cross_entropy_among_the_columns() -> None:
    network, inputs = make_network(), make_inputs()
    made = weight_gradients(network, matched_weights(network), inputs, columns=[2, 0])
    network.requires_grad_(True)
    for inputs_of_one in inputs:  # one image after the other, and softmax by hand
        logits = network(inputs_of_one[None])[0, [2, 0]]
        (-(logits[0] - logits.exp().sum().log()) / len(inputs)).backward()
    expected = [weight.grad for weight in network.parameters() if weight.ndim > 1]
    torch.testing.assert_close(list(made), expected)


def test_a_network_keeps_its_state() -> None:
    network = make_network("conv3:width=4,norm=batch")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    weight_gradients(network, matched_weights(network), make_inputs().requires_grad_(), columns=[0, 1])
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    for weight in network.parameters():
        assert not weight.requires_grad
        assert weight.grad is None


def test_gradients_of_real_images_are_constants() -> None:
    network = make_network()
    made = weight_gradients(network, matched_weights(network), make_inputs(), columns=[0, 1])
    assert not any(gradient.requires_grad for gradient in made)


def test_the_distance_equals_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 3, 3), (5, 8)]
    made = [torch.randn(shape, generator=generator) for shape in shapes]
    real = [torch.randn(shape, generator=generator) for shape in shapes]
    expected = 0.0
    for a, b in zip(made, real, strict=True):
        for row, other in zip(a, b, strict=True):
            expected += 1 - float((row * other).sum() / (row.norm() * other.norm()))
    assert float(gradient_distance(made, real)) == pytest.approx(expected, rel=1e-5)


def test_pinned_distance() -> None:
    made = [torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])]
    real = [torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1.0, 0.0]])]
    assert float(gradient_distance(made, real)) == 0 + 1 + 2


def test_the_distance_ignores_scale() -> None:
    made, real = make_inputs(seed=0), make_inputs(seed=1)
    expected = gradient_distance([made], [real])
    torch.testing.assert_close(gradient_distance([7 * made], [real / 9]), expected)


def test_an_output_without_gradient_counts_one_and_gives_none() -> None:
    made = torch.zeros(2, 3, requires_grad=True)
    distance = gradient_distance([made], [torch.zeros(2, 3)])
    assert distance.item() == 2
    (gradient,) = torch.autograd.grad(distance, made)
    assert torch.equal(gradient, torch.zeros(2, 3))


def test_the_distance_can_be_differentiated_for_the_images() -> None:
    network = make_network("mlp:hidden=6").double()
    weights = matched_weights(network)
    real = weight_gradients(network, weights, make_inputs(seed=1).double(), columns=[1, 0, 2])

    def distance(inputs: Tensor) -> Tensor:
        made = weight_gradients(network, weights, inputs, columns=[1, 0, 2])
        return gradient_distance(made, real)

    assert torch.autograd.gradcheck(distance, make_inputs(2).double().requires_grad_())
