"""`GIFTReplay`: a ready strategy, `Naive` with a `GIFTPlugin`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avalanche.training.templates import SupervisedTemplate
from torch import nn
from torch.optim import Optimizer

from gift_cl.soft_labels import Extension
from strategies.memory import DistilledMemory
from strategies.plugin import GIFTPlugin


class GIFTReplay(SupervisedTemplate):
    """Fine-tuning on the stream, with rehearsal of distilled exemplars.

    Args:
        model: The student; its frozen copies are the teachers.
        optimizer: Over the model's parameters.
        criterion: Loss on the current data; cross-entropy by default.
        memory: The exemplar store.
        loss: Loss on the exemplars, as a spec.
        batch_size_mem: Exemplars in each step; as many as current images by default.
        memory_weight: Factor of the loss on the exemplars.
        balance: Let every class count the same, old or new.
        extension: How soft labels are extended to classes that their teacher did not know.
        plugins: Other plugins; they come before the rehearsal.
        **kwargs: What `SupervisedTemplate` takes: ``train_mb_size``, ``train_epochs``, ``device``,
            ``evaluator``, ….
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: Optimizer,
        criterion: nn.Module | None = None,
        memory: DistilledMemory,
        loss: str = "gift:weight=0.8",
        batch_size_mem: int | None = None,
        memory_weight: float = 10.0,
        balance: bool = False,
        extension: Extension = "row_min",
        plugins: Sequence[Any] = (),
        **kwargs: Any,
    ) -> None:
        self.gift = GIFTPlugin(
            memory,
            loss=loss,
            batch_size_mem=batch_size_mem,
            memory_weight=memory_weight,
            balance=balance,
            extension=extension,
        )
        super().__init__(
            model=model,
            optimizer=optimizer,
            criterion=criterion or nn.CrossEntropyLoss(),
            plugins=[*plugins, self.gift],
            **kwargs,
        )

    @property
    def memory(self) -> DistilledMemory:
        """The exemplar store."""
        return self.gift.storage_policy
