"""Any optimiser of torch by name, over all parameters of a student."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gift_cl.registry import Option, parse_options

_UNFIT = {
    "LBFGS": "it calls the loss several times a step",
    "SparseAdam": "it takes sparse gradients only",
}


def optimizer_names() -> list[str]:
    """Names of the optimisers of the installed torch that can train a student, in alphabetical order."""
    return sorted(name for name in dir(torch.optim) if _is_optimizer(name) and name not in _UNFIT)


def find_optimizer(spec: str) -> tuple[type[Optimizer], dict[str, Option]]:
    """The class and the options that a spec such as ``"SGD:nesterov=true"`` describes.

    Args:
        spec: A class of torch.optim, in capitals or not; options by their names there, as far as they are
            numbers, true or false.

    Raises:
        ValueError: If there is no such class, it cannot train a student, or it has no such option.

    Example:
        >>> find_optimizer("adamw:amsgrad=true")
        (<class 'torch.optim.adamw.AdamW'>, {'amsgrad': True})
    """
    name = spec.partition(":")[0].strip()
    found = {known.lower(): known for known in dir(torch.optim) if _is_optimizer(known)}.get(name.lower())
    if found is None:
        raise ValueError(f"Unknown optimizer `{name}`. Known: {', '.join(optimizer_names())}.")
    if found in _UNFIT:
        raise ValueError(f"Expected an optimizer that steps once a batch, got `{found}`: {_UNFIT[found]}.")
    kind: type[Optimizer] = getattr(torch.optim, found)
    positional, options = parse_options(spec)
    known = [key for key in _parameters(kind) if key not in _SET_ELSEWHERE]
    if positional or not set(options) <= set(known):
        raise ValueError(
            f"Bad options in optimizer `{spec}`. Options of `{found}`, each written as name=value: "
            f"{', '.join(known)}."
        )
    return kind, options


def build_optimizer(
    spec: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    momentum: float,
    decay_all: bool,
) -> Optimizer:
    """An optimiser over the parameters of ``model`` that require a gradient; fused where torch can.

    Args:
        spec: As in `find_optimizer`.
        model: On its device.
        lr: Learning rate.
        weight_decay: Of the parameters that decay. An optimiser without weight decay (Rprop) takes only 0.
        momentum: For optimisers that have an option of this name (SGD, RMSprop, Muon); others ignore it.
        decay_all: Decay all parameters, or only those with at least two dimensions, which leaves out biases
            and the scales and shifts of normalisation.

    Raises:
        ValueError: If the optimiser refuses a setting, or cannot train this model.
    """
    kind, options = find_optimizer(spec)
    known = _parameters(kind)
    settings: dict[str, Any] = {"lr": lr}
    if "momentum" in known:
        settings["momentum"] = momentum
    if "weight_decay" not in known and weight_decay:
        raise ValueError(
            f"Expected `weight_decay` 0 for `{kind.__name__}`, which has none, got {weight_decay}."
        )
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if kind in _FUSED and {parameter.device.type for parameter in parameters} <= {"cpu", "cuda"}:
        settings["fused"] = not {"foreach", "differentiable"} & set(options)
    groups = _groups(parameters, weight_decay, decay_all) if "weight_decay" in known else parameters
    try:
        return kind(groups, **(settings | options))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(f"The optimizer `{spec}` cannot train this student: {reason}.") from error


def _groups(parameters: Iterable[nn.Parameter], weight_decay: float, decay_all: bool) -> list[dict[str, Any]]:
    split: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        decay = weight_decay if decay_all or parameter.ndim >= 2 else 0.0
        split.setdefault(decay, []).append(parameter)
    return [{"params": group, "weight_decay": decay} for decay, group in split.items()]


_FUSED = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)  # on the CPU and on CUDA since torch 2.4
_SET_ELSEWHERE = ("params", "lr", "weight_decay", "momentum")


def _parameters(kind: type[Optimizer]) -> list[str]:
    return list(inspect.signature(kind).parameters)


def _is_optimizer(name: str) -> bool:
    found = getattr(torch.optim, name)
    return isinstance(found, type) and issubclass(found, Optimizer) and found is not Optimizer
