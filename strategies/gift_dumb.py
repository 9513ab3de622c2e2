"""`GIFTDumb`: the memory-only protocol of the distillation papers."""

from __future__ import annotations

from typing import Any

from avalanche.core import SupervisedPlugin
from torch import nn

from gift_cl.students import optimizer_like, reinitialized, train_on_memory
from strategies.gift_replay import GIFTReplay
from strategies.plugin import GIFTPlugin


class GIFTDumb(GIFTReplay):
    """At each experience, a fresh student is trained on the memory alone, and it is what is evaluated.

    The model of the strategy goes on learning the stream with rehearsal; it is the teacher. The student
    that answers an evaluation has seen nothing but exemplars and their labels. That holds for
    evaluations during training too: until an experience is over, the student of the last one answers.

    Args:
        student_epochs: Passes over the memory for each student.
        student_seed: Seed of the students' initial weights.
        **kwargs: As for `GIFTReplay`. The student's optimiser is of the class and the settings of the
            strategy's; its learning rate falls to zero along a cosine.

    Source:
        Prabhu et al., GDumb, ECCV 2020; Zhao and Bilen, DM, WACV 2023, continual-learning protocol.
    """

    def __init__(self, *, student_epochs: int = 100, student_seed: int = 0, **kwargs: Any) -> None:
        if student_epochs < 1:
            raise ValueError(f"Expected `student_epochs` of at least 1, got {student_epochs}.")
        super().__init__(**kwargs)
        self._dumb = _MemoryOnlyStudent(self.gift, student_epochs, student_seed)
        self.plugins.insert(self.plugins.index(self.gift) + 1, self._dumb)

    @property
    def student(self) -> nn.Module | None:
        """The student trained on the memory after the last experience."""
        return self._dumb.student


class _MemoryOnlyStudent(SupervisedPlugin):
    """Trains the student, and lets it stand in for the model during evaluation."""

    def __init__(self, gift: GIFTPlugin, epochs: int, seed: int) -> None:
        super().__init__()
        self.gift = gift
        self.epochs = epochs
        self.seed = seed
        self.student: nn.Module | None = None
        self._teacher: nn.Module | None = None
        self._updates = 0

    def before_training(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the model back after an evaluation that was broken off, and in the mode it is to be in."""
        self.after_eval(strategy, *args, **kwargs)
        strategy.model.train()

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Train a fresh student on the memory, which `GIFTPlugin` has just brought up to date."""
        del args, kwargs
        policy, rehearsal = self.gift.storage_policy, self.gift.rehearsal
        if policy.num_updates == self._updates:
            return  # nothing was condensed: within an online task, or no data
        self._updates = policy.num_updates
        student = reinitialized(strategy.model, seed=self.seed + strategy.clock.train_exp_counter)
        optimizer = optimizer_like(strategy.optimizer, student)
        rehearsal.open(policy.exemplars.classes, strategy.device)
        batch_size = self.gift.batch_size_mem or strategy.train_mb_size
        train_on_memory(student, rehearsal, optimizer, epochs=self.epochs, batch_size=batch_size)
        self.student = student

    def before_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the student in the model's place."""
        del args, kwargs
        if self.student is not None and self._teacher is None:
            self._teacher, strategy.model = strategy.model, self.student.eval()

    def after_eval(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Put the model back."""
        del args, kwargs
        if self._teacher is not None:
            strategy.model, self._teacher = self._teacher, None
