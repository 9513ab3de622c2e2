"""`GIFTPlugin`: rehearsal of distilled exemplars beside the current data, with a loss of its own."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metric_results import MetricValue
from torch import Tensor

from gift_cl.rehearsal import Rehearsal, RehearsalBatch
from gift_cl.soft_labels import Extension
from strategies.experience import (
    classes_of,
    require_images,
    require_one_head,
    require_supported,
    whole_task,
)
from strategies.memory import DistilledMemory


class GIFTPlugin(SupervisedPlugin, supports_distributed=False):  # type: ignore[call-arg]
    """Rehearses exemplars in the forward pass of the current batch, and takes them out again.

    It works with any strategy that has Avalanche's supervised training loop. Other plugins, the
    criterion and the training metrics see the current data only. Put it last in the list of plugins.
    The defaults were chosen on a validation split of Split digits; docs/results.md has the figures.

    Args:
        storage_policy: The memory.
        loss: Loss on the exemplars, as a spec: ``gift:weight=0.5``, ``kl:temperature=4,t2=true``, ….
        batch_size_mem: Exemplars in each step; as many as current images by default.
        memory_weight: Factor of the loss on the exemplars.
        balance: Let every class count the same: with ``o`` classes in the memory and ``n`` current ones,
            the loss on the exemplars counts ``o / n`` times, and the whole loss is divided by ``1 + o / n``.
        extension: How soft labels are extended to classes that their teacher did not know.

    Raises:
        ValueError: If a name is unknown, or the loss needs soft labels that the memory does not keep.
    """

    def __init__(
        self,
        storage_policy: DistilledMemory,
        *,
        loss: str = "gift:weight=0.8",
        batch_size_mem: int | None = None,
        memory_weight: float = 10.0,
        balance: bool = False,
        extension: Extension = "row_min",
    ) -> None:
        super().__init__()
        if batch_size_mem is not None and batch_size_mem < 1:
            raise ValueError(f"Expected `batch_size_mem` of at least 1, got {batch_size_mem}.")
        if not memory_weight >= 0:
            raise ValueError(f"Expected `memory_weight` of at least 0, got {memory_weight}.")
        self.storage_policy = storage_policy
        self.batch_size_mem = batch_size_mem
        self.memory_weight = memory_weight
        self.balance = balance
        self.rehearsal = Rehearsal(
            storage_policy.exemplars,
            loss=loss,
            normalization=storage_policy.normalization,
            extension=extension,
        )
        self._classes: list[int] = []  # of the present task
        self._has_seen_images = False
        self._batch: RehearsalBatch | None = None
        self._losses: list[Tensor] = []

    def before_train_dataset_adaptation(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what cannot work, before the model is adapted and trained."""
        del args, kwargs
        require_supported(strategy.experience)
        require_one_head(strategy.model)
        if not self._has_seen_images:
            require_images(strategy.experience, self.storage_policy.normalization)
            self._has_seen_images = True

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Open the memory for the classes of this experience and of those before."""
        del args, kwargs
        # Of an online part too: Avalanche opens a growing head for the whole task at its first part.
        self._classes = classes_of(whole_task(strategy.experience))
        self._open(strategy.device)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Append exemplars to the batch."""
        del args, kwargs
        if not self._open(strategy.device):
            return
        batch = strategy.mbatch
        if not isinstance(batch, list):
            raise TypeError(
                f"Expected mini-batches of (inputs, labels, …), got {type(batch).__name__}. "
                "Make the data set return tuples."
            )
        self._batch = self.rehearsal.draw(self.batch_size_mem or strategy.train_mb_size)
        inputs = self._batch.inputs
        batch[0] = torch.cat([batch[0], inputs.to(batch[0].dtype)])
        if len(batch) > 2:
            batch[-1] = torch.cat([batch[-1], batch[-1].new_zeros(len(inputs), *batch[-1].shape[1:])])

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the exemplars out again, and add their loss."""
        del args, kwargs
        if self._batch is None:
            return
        batch, count = strategy.mbatch, len(self._batch.inputs)
        outputs = strategy.mb_output
        if not isinstance(outputs, Tensor) or len(outputs) != len(batch[0]):
            raise TypeError(
                f"Expected the model to return logits (N, C), one row for each of {len(batch[0])} inputs, "
                f"got {_describe(outputs)}. Put this plugin last in the list of plugins."
            )
        strategy.mb_output = outputs[:-count]
        batch[0] = batch[0][:-count]
        if len(batch) > 2:
            batch[-1] = batch[-1][:-count]
        loss = self.rehearsal.loss(outputs[-count:], self._batch)
        strategy.loss = strategy.loss + self.memory_weight * self._old_for_new() * loss
        self._losses.append(loss.detach())
        self._batch = None

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Divide the whole loss, when every class is to count the same."""
        del args, kwargs
        if self.balance and self.rehearsal.is_open:
            strategy.loss = strategy.loss / (1 + self._old_for_new())

    def after_training_epoch(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Publish the mean loss on the exemplars."""
        del args, kwargs
        if self._losses:
            self._publish(strategy, "loss", float(torch.stack(self._losses).mean()))
            self._losses.clear()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Condense the experience, and publish what the memory costs."""
        del args, kwargs
        memory = self.storage_policy
        updates = memory.num_updates
        memory.post_adapt(strategy, strategy.experience)
        if memory.num_updates == updates:
            return  # within an online task, or no data
        for part, nbytes in memory.ledger.by_part().items():
            self._publish(strategy, f"memory_bytes/{part}", nbytes)
        self._publish(strategy, "memory_bytes/total", memory.ledger.total)
        self._publish(strategy, "distillation_seconds", memory.distillation_seconds)
        if memory.teacher_accuracy is not None:
            self._publish(strategy, "teacher_accuracy", memory.teacher_accuracy)

    def _open(self, device: Any) -> bool:
        """Decode the memory if that has not been done; whether there is one."""
        memory = self.storage_policy.exemplars
        if not len(memory):
            return False
        classes = tuple(dict.fromkeys((*memory.classes, *self._classes)))
        if not self.rehearsal.is_open_for(classes, device):
            self.rehearsal.open(classes, device)
        return True

    def _old_for_new(self) -> float:
        """Classes in the memory for each current one, when every class is to count the same; otherwise 1."""
        if not self.balance:
            return 1.0
        return len(self.storage_policy.exemplars.classes) / len(self._classes)

    def _publish(self, strategy: Any, name: str, value: float) -> None:
        step = strategy.clock.train_iterations
        strategy.evaluator.publish_metric_value(MetricValue(self, f"GIFT/{name}", value, step))


def _describe(outputs: Any) -> str:
    return str(tuple(outputs.shape)) if isinstance(outputs, Tensor) else type(outputs).__name__
