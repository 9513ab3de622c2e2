"""Processes that do one thing together: which one this is, and what they tell each other.

`torchrun` starts them. Without it, and outside of `joined`, there is one process, and nothing here costs
anything. All run the same program on the same data, so they come to the same exchanges in the same order;
only what goes wrong may differ. So before each exchange they say whether all is well, and what one raises
ends the same block in all of them. These words go through the CPU, so no device is waited for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gift_cl.evaluation.memory_limits import is_out_of_memory

_PATIENCE = timedelta(days=2)  # images may be decoded meanwhile; a lost process is noticed at once
_WELL, _NO_MEMORY, _FAILED = range(3)


class OtherProcessError(OSError):
    """Another process failed."""


class LostProcessError(OtherProcessError):
    """Another process is gone, so nothing can be told any more."""


class Processes:
    """The processes that share a training, as one of them sees it.

    Args:
        rank: Number of this process, from 0.
        count: Of all.
        local_rank: Number of this process on its machine.
    """

    def __init__(self, *, rank: int = 0, count: int = 1, local_rank: int = 0) -> None:
        self.rank = rank
        self.count = count
        self._local_rank = local_rank

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """The device of this process: of several, each has a card of its own.

        Raises:
            ValueError: If one card is named for several processes.
        """
        if self.count == 1 or not name.startswith("cuda"):
            return name
        if name != "cuda":
            raise ValueError(
                f"Expected `device` cuda for {self.count} processes, each of which takes a card of its own, "
                f"got {name}. Choose cards with CUDA_VISIBLE_DEVICES."
            )
        return f"cuda:{self._local_rank}"

    def share(self, num_rows: int) -> slice:
        """The rows that are this process's; the shares follow each other and differ by at most one row."""
        return slice(num_rows * self.rank // self.count, num_rows * (self.rank + 1) // self.count)

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, the same bits in each, in place of ``tensor``, which is contiguous."""
        if self.count > 1:
            self._meet()
            with _connected():
                dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their sums, in one exchange."""
        if self.count == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        sums = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = sums.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def tell(self, value: Any = None) -> Any:
        """What the first process says; the others get it, whatever they say."""
        if self.count == 1:
            return value
        self._meet()
        said = [value]
        with _connected():
            dist.broadcast_object_list(said)
        return said[0]

    @contextmanager
    def first_ahead(self) -> Iterator[None]:
        """A block, without exchanges, that the others enter when the first process has left it.

        What it leaves in a cache, they find there.
        """
        if not self.is_first:
            self._meet()
        yield
        if self.is_first:
            self._meet()

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block that all processes leave in the same way.

        Raises:
            MemoryError: If another process ran out of memory in it.
            OtherProcessError: If something else went wrong in another process, or it is gone.
        """
        try:
            yield
        except LostProcessError:
            raise
        except Exception as error:
            if not _is_known(error):
                self._meet(error)
            raise
        self._meet()

    def _meet(self, error: Exception | None = None) -> None:
        """Wait for all, and raise what the others have to report, if it is worse than the own error."""
        if self.count == 1:
            return
        own = _WELL if error is None else _NO_MEMORY if is_out_of_memory(error) else _FAILED
        states = torch.zeros(self.count, dtype=torch.int64)
        states[self.rank] = own
        with _connected():
            dist.all_reduce(states)
            worst = int(states.max())
            if worst == _WELL:
                return
            reports = [""] * self.count
            dist.all_gather_object(reports, f"{type(error).__name__}: {error}")
        if error is not None:
            _note_known(error)
        if own < worst:
            rank = int(states.argmax())
            text = f"Process {rank} failed with {reports[rank]}"
            told = MemoryError(text) if worst == _NO_MEMORY else OtherProcessError(text)
            _note_known(told)
            raise told from None


_CURRENT: ContextVar[Processes] = ContextVar("_CURRENT")


def current() -> Processes:
    """The processes that share what is done here; one alone outside of `joined`."""
    return _CURRENT.get(Processes())


@contextmanager
def joined() -> Iterator[Processes]:
    """A block that all processes of `torchrun` do together; the only one of its process, but for inner ones.

    When it fails in all, the first process raises its error, and the others exit with status 2.
    """
    if current().count > 1 or not (dist.is_available() and dist.is_torchelastic_launched()):
        yield current()
        return
    rank, count, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if count == 1:
        yield current()
        return
    has_cards = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group("cpu:gloo,cuda:nccl" if has_cards else "gloo", timeout=_PATIENCE)
    if has_cards and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
    processes = Processes(rank=rank, count=count, local_rank=local_rank)
    token = _CURRENT.set(processes)
    try:
        with processes.together():
            yield processes
    except Exception as error:
        if processes.is_first or isinstance(error, LostProcessError):
            raise
        raise SystemExit(2) from None
    finally:
        _CURRENT.reset(token)
    dist.destroy_process_group()


@contextmanager
def _connected() -> Iterator[None]:
    """Says of a lost connection what it is."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            "The connection to another process is lost. What is finished is kept: start the command again."
        ) from error


def _note_known(error: Exception) -> None:
    """Note that all processes know of an error."""
    vars(error)["is_known_to_all"] = True


def _is_known(error: Exception) -> bool:
    return "is_known_to_all" in vars(error)
