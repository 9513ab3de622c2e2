"""Where a run reports to: Weights & Biases, or nowhere. `wandb` is imported only when it is used."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

Mode = Literal["offline", "online", "disabled"]


class Tracker(Protocol):
    """Takes what a run has to say."""

    def log(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Numbers of one moment."""

    def picture(self, name: str, path: Path) -> None:
        """An image file."""

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """A file to keep with the run."""

    def finish(self, summary: Mapping[str, float]) -> None:
        """The numbers that stand for the run; nothing is logged afterwards."""


class NoTracker:
    """Drops everything."""

    def log(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Nothing."""

    def picture(self, name: str, path: Path) -> None:
        """Nothing."""

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """Nothing."""

    def finish(self, summary: Mapping[str, float]) -> None:
        """Nothing."""


class WandbTracker:
    """A W&B run.

    Args:
        mode: ``offline`` writes files that ``wandb sync`` uploads later.
        config: The configuration of the run.
        name: Name of the run.
        group: Runs that belong together.
        folder: Where the files go.
        timeout_s: How long to wait for the server.

    When W&B cannot be reached on line, or nobody is logged in, the run goes on off line, with a warning:
    nothing is lost, and nobody is asked for anything.
    """

    def __init__(
        self,
        *,
        mode: Literal["offline", "online"],
        config: Mapping[str, Any],
        name: str,
        group: str,
        folder: Path,
        timeout_s: float = 20.0,
    ) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._wandb = wandb
        common: dict[str, Any] = {
            "project": "gift-cl",
            "config": dict(config),
            "name": name,
            "group": group,
            "dir": str(folder),
        }
        settings = wandb.Settings(silent=True, console="off", init_timeout=timeout_s)
        # Without `show_info`, a missing key is an error, even where somebody could be asked to type it.
        wandb.setup(settings=wandb.Settings(show_info=False))
        try:
            self.run = wandb.init(mode=mode, settings=settings, **common)
        except (wandb.errors.Error, OSError, TimeoutError) as error:
            if mode == "offline":
                raise
            reason = str(error).partition("\n")[0].rstrip(".")
            warnings.warn(
                f"W&B cannot be reached ({reason}); the run is kept off line in `{folder}`. "
                "Log in with `wandb login`, and upload it later with `wandb sync`.",
                stacklevel=2,
            )
            self.run = wandb.init(mode="offline", settings=settings, **common)

    def log(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Numbers of one moment."""
        self.run.log({name: float(value) for name, value in metrics.items()}, step=step)

    def picture(self, name: str, path: Path) -> None:
        """An image file, copied into the run."""
        # Committed, it would close the present step, and drop what is still logged for it.
        self.run.log({name: self._wandb.Image(str(path))}, commit=False)

    def artifact(self, name: str, kind: str, path: Path) -> None:
        """A file to keep with the run."""
        artifact = self._wandb.Artifact(name, type=kind)
        artifact.add_file(str(path))
        self.run.log_artifact(artifact)

    def finish(self, summary: Mapping[str, float]) -> None:
        """The numbers that stand for the run; nothing is logged afterwards."""
        self.run.summary.update({name: float(value) for name, value in summary.items()})
        self.run.finish()


def make_tracker(mode: Mode, *, config: Mapping[str, Any], name: str, group: str, folder: Path) -> Tracker:
    """The tracker for a mode.

    Raises:
        ValueError: If the mode is unknown.
    """
    if mode == "disabled":
        return NoTracker()
    if mode not in ("offline", "online"):
        raise ValueError(f"Expected `tracking` offline, online or disabled, got {mode!r}.")
    return WandbTracker(mode=mode, config=config, name=name, group=group, folder=folder)
