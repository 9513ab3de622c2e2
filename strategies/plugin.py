"""`GIFTPlugin`: rehearsal of distilled exemplars beside the current data, with a loss of its own."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from avalanche.evaluation.metric_results import MetricValue
from torch import Tensor

from gift_cl.rehearsal import Rehearsal, RehearsalBatch
from gift_cl.soft_labels import Extension
from strategies.experience import classes_of, require_supported, whole_task
from strategies.memory import DistilledMemory


class GIFTPlugin(SupervisedPlugin, supports_distributed=False):  # type: ignore[call-arg]
    """Rehearses exemplars in the forward pass of the current batch, and takes them out again.

    It works with any strategy that has Avalanche's supervised training loop. Other plugins, the
    criterion and the training metrics see the current data only. Put it last in the list of plugins.

    Args:
        storage_policy: The memory.
        loss: Loss on the exemplars, as a spec: ``gift:weight=0.5``, ``kl:temperature=4,t2=true``, ….
        batch_size_mem: Exemplars in each step; as many as current images by default.
        memory_weight: Factor of the loss on the exemplars.
        extension: How soft labels are extended to classes that their teacher did not know.

    Raises:
        ValueError: If a name is unknown, or the loss needs soft labels that the memory does not keep.
    """

    def __init__(
        self,
        storage_policy: DistilledMemory,
        *,
        loss: str = "gift",
        batch_size_mem: int | None = None,
        memory_weight: float = 1.0,
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
        self.rehearsal = Rehearsal(
            storage_policy.exemplars,
            loss=loss,
            normalization=storage_policy.normalization,
            extension=extension,
        )
        self._batch: RehearsalBatch | None = None
        self._losses: list[Tensor] = []

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Open the memory for the classes of this experience and of those before."""
        del args, kwargs
        require_supported(strategy.experience)
        memory = self.storage_policy.exemplars
        if not len(memory):
            return
        current = classes_of(whole_task(strategy.experience))
        classes = tuple(dict.fromkeys((*memory.classes, *current)))
        if not self.rehearsal.is_open_for(classes, strategy.device):
            self.rehearsal.open(classes, strategy.device)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Append exemplars to the batch."""
        del args, kwargs
        if not self.rehearsal.is_open:
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
            batch[-1] = torch.cat([batch[-1], batch[-1].new_zeros(len(inputs))])

    def after_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take the exemplars out again, and add their loss."""
        del args, kwargs
        if self._batch is None:
            return
        batch, count = strategy.mbatch, len(self._batch.inputs)
        outputs = strategy.mb_output
        strategy.mb_output = outputs[:-count]
        batch[0] = batch[0][:-count]
        if len(batch) > 2:
            batch[-1] = batch[-1][:-count]
        loss = self.rehearsal.loss(outputs[-count:], self._batch)
        strategy.loss = strategy.loss + self.memory_weight * loss
        self._losses.append(loss.detach())
        self._batch = None

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

    def _publish(self, strategy: Any, name: str, value: float) -> None:
        step = strategy.clock.train_iterations
        strategy.evaluator.publish_metric_value(MetricValue(self, f"GIFT/{name}", value, step))
