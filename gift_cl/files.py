"""Files that are either whole or not there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TORCH_WRITER = "inline_container"  # in what `torch.save` says of a failed write, a RuntimeError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without an error.

    Missing folders are made. When the block raises, ``path`` is as it was before.

    Raises:
        OSError: If the folder cannot be written, or a write fails within the block, as on a full disk; the
            message names it and the cure.
    """
    target = Path(path)
    temporary = _file_beside(target)
    try:
        with explaining_writes(path, at=temporary):
            yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def explaining_writes(path: str | os.PathLike[str], *, at: Path) -> Iterator[None]:
    """Turn a write that fails within the block, as on a full disk, into an error that helps.

    Args:
        path: What is being written, as the user knows it.
        at: The temporary file or folder that it is written to. An error that names a file elsewhere, which
            the block reads, stays what it is.

    Raises:
        OSError: If a write fails; the message names ``path`` and the cure.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if not _is_failed_write(error, at):
            raise
        raise OSError(
            f"Cannot write `{os.fspath(path)}`: {_reason(error)}. Make space on its disk, or choose another."
        ) from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Before long work: whether a file can be written at ``path``. Missing folders are made.

    Raises:
        OSError: If not; the message names the folder.
    """
    _file_beside(Path(path)).unlink()


def sha256_of_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_beside(target: Path) -> Path:
    """A new empty file in the folder of ``target``, which is made if it is missing."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise OSError(
            f"Cannot write into `{target.parent}`: {error.strerror}. Choose a folder that you may write to."
        ) from error
    os.close(handle)
    return Path(name)


def _is_failed_write(error: Exception, at: Path) -> bool:
    """Whether it is one of what is written to ``at``, and not of a file elsewhere or of another kind."""
    if isinstance(error, RuntimeError):
        return _TORCH_WRITER in str(error)
    if isinstance(error, BrokenPipeError):
        return False  # no file does that, but a terminal that shows progress and is closed
    name = error.filename if isinstance(error, OSError) else None
    return not isinstance(name, str | os.PathLike) or Path(name).is_relative_to(at)


def _reason(error: Exception) -> str:
    """What the system says; safetensors wraps it in words of its own, and PyTorch keeps it to itself."""
    if isinstance(error, RuntimeError):
        return "the file could not be written to its end"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).rpartition("error: ")[2].partition(" (os error")[0]


def _umask() -> int:
    """The process's file mode mask (it can only be read by setting it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
