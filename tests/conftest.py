"""What tests of several folders need: one thread, W&B kept away from the home folder, its files read."""

from __future__ import annotations

import json
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

_BLOCK = 32_768  # of LevelDB's log format, which W&B's files follow
_FULL, _LAST, _KINDS = 1, 4, (1, 2, 3, 4)  # a whole record, the end of one, any piece
_PATIENCE_S = 30

OfflineRun = tuple[dict[str, Any], list[dict[str, Any]], dict[str, Any]]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models of a few hundred weights are slower on several threads, and much slower on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture
def tiny_files() -> Iterator[None]:
    """The system writes 100 bytes of a file and refuses the rest, as it would on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def wandb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for what W&B keeps beside its runs; nobody is logged in, and no server answers."""
    home = tmp_path / "wandb-home"
    for name in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(home / name.lower()))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # the discard port: closed
    for name in ("API_KEY", "MODE", "DIR", "SILENT", "IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    _forget_wandb()  # it reads the environment once
    yield home
    _forget_wandb()


def _forget_wandb() -> None:
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()


@pytest.fixture
def read_offline_records() -> Callable[[Path], list[Any]]:
    """Reads all records of the one off-line W&B run below a folder, as protocol buffers."""
    return _offline_records


@pytest.fixture
def read_offline_run() -> Callable[[Path], OfflineRun]:
    """Reads config, history and summary of the one off-line W&B run below a folder."""

    def read(folder: Path) -> OfflineRun:
        config: dict[str, Any] = {}
        history: list[dict[str, Any]] = []
        summary: dict[str, Any] = {}
        for record in _offline_records(folder):
            match record.WhichOneof("record_type"):
                case "run":
                    config |= _values(record.run.config.update)
                case "config":
                    config |= _values(record.config.update)
                case "history":
                    history.append(_values(record.history.item))
                case "summary":
                    summary |= _values(record.summary.update)
        config.pop("_wandb", None)
        return config, history, summary

    return read


def _values(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _offline_records(folder: Path) -> list[Any]:
    """All records, once the last one is there: another process writes them."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        records = _parse(path.read_bytes())
        if any(record.HasField("exit") for record in records):
            return records
        if time.monotonic() > deadline:
            raise TimeoutError(f"The run in `{path}` has not ended; was its tracker finished?")
        time.sleep(0.02)


def _parse(data: bytes) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    assert data[:4] in (b"", b":W&B")
    position, piece, records = 7, b"", []
    while position + 7 <= len(data):
        rest = _BLOCK - position % _BLOCK
        if rest < 7:  # no header fits: the block is padded
            position += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind not in _KINDS or position + 7 + length > len(data):
            break  # still being written
        piece += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (_FULL, _LAST):
            record: Any = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(piece)
            records.append(record)
            piece = b""
    return records
