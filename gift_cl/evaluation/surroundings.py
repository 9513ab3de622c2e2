"""What a result was made with and on: versions, commit, hardware, memory."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from pathlib import Path

import torch

from gift_cl.evaluation.processes import current


def versions(*more: str) -> dict[str, str]:
    """Versions of what a result depends on, by name; ``more`` are packages that others do without."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("gift-cl", "torch", "torchvision", "numpy", *more):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


@functools.cache
def commit() -> str:
    """The commit of the checkout, with ``+`` when it has changes; ``unknown`` outside of git."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changes = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changes else "")


def hardware(device: torch.device) -> str:
    """What a device is, in words, and how many processes have one like it."""
    count = current().count
    each = "" if count == 1 else f"{count} processes of "
    if device.type == "cuda":
        return each + torch.cuda.get_device_name(device)
    return f"{each}{_processor()}, {torch.get_num_threads()} threads"


class PeakMemory:
    """The most memory that was in use; read ``nbytes`` when the work is done.

    Args:
        device: On CUDA, the most that tensors took on this device. Elsewhere, by how much the
            largest size of the process has grown.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self._before = _largest_size()

    @property
    def nbytes(self) -> int | None:
        """Bytes; None where the process had been as large before, which tells nothing."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device)
        return (_largest_size() - self._before) or None


def _largest_size() -> int:
    """The largest size that this process has had, in bytes; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


@functools.cache
def _processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _git(*arguments: str) -> str:
    run = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return run.stdout.strip()
