"""Training a student on a memory alone."""

from __future__ import annotations

import copy
import inspect

import torch
from torch import nn
from torch.optim import Optimizer

from gift_cl.rehearsal import Rehearsal


def train_on_memory(
    student: nn.Module,
    rehearsal: Rehearsal,
    optimizer: Optimizer,
    *,
    epochs: int,
    batch_size: int,
) -> float:
    """Train ``student``, in place, on nothing but the exemplars of an open rehearsal.

    Args:
        student: On the device of the rehearsal; left in training mode.
        rehearsal: Open, with at least one exemplar.
        optimizer: Over the parameters of the student. Its learning rate follows a cosine to zero.
        epochs: Passes over the memory.
        batch_size: Exemplars a step; no more than there are in the memory are taken.

    Returns:
        Mean loss of the last epoch.

    Raises:
        ValueError: If ``epochs`` or ``batch_size`` is less than 1, or the memory is empty.
        FloatingPointError: If the loss is not finite.
    """
    count = len(rehearsal.memory)
    if min(epochs, batch_size, count) < 1:
        raise ValueError(
            f"Expected at least one of `epochs`, of `batch_size` and of exemplars, got {epochs}, "
            f"{batch_size} and {count}."
        )
    batch_size = min(batch_size, count)
    steps = -(-count // batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * steps)
    student.train()
    total = torch.zeros(())
    for _ in range(epochs):
        losses = []
        for _ in range(steps):
            batch = rehearsal.draw(batch_size)
            optimizer.zero_grad(set_to_none=True)
            loss = rehearsal.loss(student(batch.inputs), batch)
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        total = torch.stack(losses).mean()
        if not bool(torch.isfinite(total)):
            raise FloatingPointError(
                "The loss on the memory is not finite. Lower the learning rate, and check the memory."
            )
    return float(total)


def reinitialized(model: nn.Module, *, seed: int) -> nn.Module:
    """A copy of ``model`` with fresh weights, of the same shape and on the same device.

    The weights are drawn on the CPU, so they are the same wherever the model is.

    Args:
        model: On one device; not changed. Every module that holds parameters needs a
            ``reset_parameters``, as torch's layers have.
        seed: The global random state is restored afterwards.

    Raises:
        TypeError: If a module would keep its trained parameters.
    """
    device = next(model.parameters()).device
    fresh = copy.deepcopy(model).cpu()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        for name, module in fresh.named_modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
            elif kept := [parameter for parameter, _ in module.named_parameters(recurse=False)]:
                raise TypeError(
                    f"Expected a `reset_parameters` of `{name or type(module).__name__}`, which holds "
                    f"{kept}, got none: a fresh student would keep what the model has learnt. Add that "
                    "method to its class."
                )
    return fresh.to(device)


def optimizer_like(optimizer: Optimizer, model: nn.Module) -> Optimizer:
    """A new optimiser over ``model``, of the class and with the settings of another one.

    Args:
        optimizer: Not changed. Its first parameter group is followed, with the learning rate from before
            any scheduler.
        model: All its parameters are optimised.
    """
    group = optimizer.param_groups[0]
    settings = {name: group.get(name, value) for name, value in optimizer.defaults.items()}
    settings["lr"] = group.get("initial_lr", group["lr"])
    known = inspect.signature(type(optimizer)).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        # Some classes, such as AdamW, keep defaults of their parent that they do not take.
        settings = {name: value for name, value in settings.items() if name in known}
    return type(optimizer)(model.parameters(), **settings)
