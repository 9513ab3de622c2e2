"""Training a student on a memory alone."""

from __future__ import annotations

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
        batch_size: Exemplars a step, at most the size of the memory.

    Returns:
        Mean loss of the last epoch.

    Raises:
        FloatingPointError: If the loss is not finite.
    """
    count = len(rehearsal.memory)
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

    Args:
        model: Not changed. Modules with ``reset_parameters`` are drawn anew; others keep their state.
        seed: The global random state is restored afterwards.
    """
    import copy

    fresh = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in fresh.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return fresh
