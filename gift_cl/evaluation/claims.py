"""Claims on cells: processes that share a folder do each cell once, and take over what a dead one left.

A claim is a file ``NAME.GENERATION``. Whoever creates generation 0 has the cell. When its process is dead,
whoever creates the next generation has it: creating a file that must not exist yet is atomic, so only one of
many that see a dead owner succeeds. Rows are appended before a claim is given back, so look at the rows once
more after taking one.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_RESERVE = 1 << 16  # bytes of a claim: space for a row, should the disk run full while a cell is trained


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who holds a claim.

    Args:
        pid: Number of the process.
        machine: Where that number means something: host, its start, and its namespace of processes.
        birth: When the process began, as the system tells it; empty where it does not.
        started: When it took the claim, seconds since 1970.
    """

    pid: int
    machine: str
    birth: str
    started: float

    def __str__(self) -> str:
        return f"process {self.pid} on {self.machine.partition(' ')[0]}"


class Claim:
    """A cell that is ours until the block ends; a thread touches the file now and then to say so."""

    def __init__(self, path: Path, *, text_size: int, heartbeat_s: float) -> None:
        self._path = path
        self._text_size = text_size
        self._heartbeat_s = heartbeat_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def free_space(self) -> None:
        """Give the bytes that the claim holds back to the disk; it stays a claim."""
        os.truncate(self._path, self._text_size)

    def __enter__(self) -> Claim:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        # The oldest first: the newest keeps others away until it goes.
        for path in _generations(self._path.parent, self._path.stem):
            path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._is_over.wait(self._heartbeat_s):
            with suppress(OSError):
                os.utime(self._path)


def take_claim(
    folder: Path, name: str, *, heartbeat_s: float = 15.0, timeout_s: float = 300.0
) -> Claim | Owner:
    """A claim on ``name``, or who holds it.

    A claim of this machine is dead when its process is; one of another machine when it has not been touched
    for ``timeout_s``.

    Args:
        folder: Folder of the claims; made if missing.
        name: What is claimed; it has to be usable as a file name, and hold no dot.
        heartbeat_s: Seconds between two touches.
        timeout_s: Seconds of silence after which a claim of another machine is dead; much more than
            ``heartbeat_s``, and than the clocks of the machines may differ.

    Raises:
        OSError: If the folder cannot be written, or there is no space for a row.
    """
    folder.mkdir(parents=True, exist_ok=True)
    owner = Owner(pid=os.getpid(), machine=_machine(), birth=_birth(os.getpid()) or "", started=time.time())
    text = json.dumps(vars(owner)).encode()
    while True:
        latest = max(_generations(folder, name), key=_generation, default=None)
        try:
            if latest is not None and (holder := _living_owner(latest, timeout_s)) is not None:
                return holder
        except FileNotFoundError:
            continue  # it has just been given back
        path = folder / f"{name}.{0 if latest is None else _generation(latest) + 1}"
        try:
            _create(path, text.ljust(_RESERVE))
        except FileExistsError:
            continue  # another process was faster; see whether it lives
        return Claim(path, text_size=len(text), heartbeat_s=heartbeat_s)


def _create(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        while content:
            content = content[os.write(handle, content) :]
        os.fsync(handle)  # only now is it sure that there was space
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)


def _generations(folder: Path, name: str) -> list[Path]:
    """The claims on ``name``, the oldest first."""
    return sorted(folder.glob(f"{name}.*"), key=_generation)


def _generation(path: Path) -> int:
    return int(path.suffix[1:])


def _living_owner(path: Path, timeout_s: float) -> Owner | None:
    """Who holds a claim; None if the process is dead."""
    silence_s = time.time() - path.stat().st_mtime
    try:
        owner = Owner(**json.loads(path.read_bytes()))
    except (ValueError, TypeError):  # its process is just writing it, or died at that
        owner = Owner(pid=0, machine="an unknown host", birth="", started=0.0)
    if owner.machine != _machine():
        return owner if silence_s < timeout_s else None
    birth = _birth(owner.pid)
    if birth is None or (birth and owner.birth and birth != owner.birth):
        return None  # it ended; another process may have its number now
    return owner


def _machine() -> str:
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _birth(pid: int) -> str | None:
    """When a process began; None if it has ended, empty if the system does not tell."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it is somebody else's
    try:
        # Behind the name, which may hold anything: the state, and, 19 further, the start in clock ticks.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return ""
    return None if fields[0] in (b"Z", b"X") else fields[19].decode()
