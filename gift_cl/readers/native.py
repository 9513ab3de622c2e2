"""Data sets that this package wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gift_cl.dataset import DistilledDataset
from gift_cl.dataset_file import load_dataset
from gift_cl.progress import Progress
from gift_cl.readers.tensors import shorten

_START = b'{"__metadata__":{"gift_cl":'  # behind eight bytes of length


@dataclass(frozen=True)
class NativeReader:
    """Reads a file of `save_dataset`."""

    @property
    def spec(self) -> str:
        """Name; there are no options."""
        return "gift-cl"

    def recognizes(self, path: Path) -> bool:
        """See `Reader.recognizes`; the first bytes of a file ``*.safetensors`` are read too."""
        if path.suffix != ".safetensors":
            return False
        try:
            with open(path, "rb") as file:
                return file.read(8 + len(_START))[8:] == _START
        except OSError:
            return False

    def read(self, path: Path, *, ipc: int | None, progress: Progress) -> DistilledDataset:
        """See `Reader.read`."""
        dataset = load_dataset(path)
        progress(len(dataset), len(dataset))
        return shorten(dataset, ipc, where=path)
