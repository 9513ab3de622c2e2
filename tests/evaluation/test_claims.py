import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gift_cl.evaluation.claims import Claim, Owner, take_claim

HOLDER = """
import sys, time
from pathlib import Path
from gift_cl.evaluation.claims import Claim, take_claim
claim = take_claim(Path(sys.argv[1]), "cell", heartbeat_s=0.02)
with claim:
    print("held" if isinstance(claim, Claim) else "refused", flush=True)
    time.sleep(60)
"""


def start_holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def write_claim(folder: Path, owner: Owner | None = None, *, silence_s: float = 0) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "cell.0"
    path.write_text("" if owner is None else json.dumps(vars(owner)))
    os.utime(path, (time.time() - silence_s,) * 2)
    return path


def own_claim(folder: Path) -> Owner:
    """What this process writes into a claim."""
    claim = take_claim(folder, "sample")
    assert isinstance(claim, Claim)
    with claim:
        return Owner(**json.loads((folder / "sample.0").read_text()))


def test_cell_is_held_until_the_block_ends(tmp_path: Path) -> None:
    claim = take_claim(tmp_path, "cell")
    assert isinstance(claim, Claim)
    with claim:
        holder = take_claim(tmp_path, "cell")
        assert isinstance(holder, Owner)
        assert str(holder) == f"process {os.getpid()} on {socket.gethostname()}"
        other = take_claim(tmp_path, "other")
        assert isinstance(other, Claim)
        with other:
            pass
    assert list(tmp_path.iterdir()) == []
    assert isinstance(take_claim(tmp_path, "cell"), Claim)


def test_claim_is_given_back_after_an_error(tmp_path: Path) -> None:
    claim = take_claim(tmp_path, "cell")
    assert isinstance(claim, Claim)
    with pytest.raises(KeyboardInterrupt), claim:
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_claim_of_a_living_process_is_respected_and_of_a_killed_one_taken_over(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    try:
        holder = take_claim(tmp_path, "cell")
        assert isinstance(holder, Owner)
        assert holder.pid == process.pid
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet gone
        claim = take_claim(tmp_path, "cell")
        assert isinstance(claim, Claim)
    finally:
        stop(process)
    assert (tmp_path / "cell.1").exists()
    with claim:
        assert isinstance(take_claim(tmp_path, "cell"), Owner)
    assert list(tmp_path.iterdir()) == []


def test_stopped_process_keeps_its_claim(tmp_path: Path) -> None:
    process = start_holder(tmp_path)
    try:
        process.send_signal(signal.SIGSTOP)
        assert isinstance(take_claim(tmp_path, "cell", timeout_s=0), Owner)
    finally:
        stop(process)


def test_number_of_a_dead_process_may_be_in_use_again(tmp_path: Path) -> None:
    owner = own_claim(tmp_path)
    assert owner.birth.isdigit()
    write_claim(tmp_path, Owner(**(vars(owner) | {"birth": str(int(owner.birth) - 1)})))
    assert isinstance(take_claim(tmp_path, "cell"), Claim)


def test_unknown_birth_does_not_make_a_process_dead(tmp_path: Path) -> None:
    write_claim(tmp_path, Owner(**(vars(own_claim(tmp_path)) | {"birth": ""})))
    assert isinstance(take_claim(tmp_path, "cell"), Owner)


@pytest.mark.parametrize("machine", ["elsewhere", "elsewhere boot pid:[1]"])
def test_claim_of_another_machine_lives_as_long_as_it_is_touched(tmp_path: Path, machine: str) -> None:
    owner = Owner(pid=os.getpid(), machine=machine, birth="", started=0.0)
    write_claim(tmp_path, owner, silence_s=50)
    holder = take_claim(tmp_path, "cell", timeout_s=60)
    assert isinstance(holder, Owner)
    assert str(holder) == f"process {os.getpid()} on elsewhere"
    assert isinstance(take_claim(tmp_path, "cell", timeout_s=40), Claim)


def test_same_host_after_a_restart_is_another_machine(tmp_path: Path) -> None:
    owner = own_claim(tmp_path)
    host, _, rest = owner.machine.partition(" ")
    assert rest
    write_claim(tmp_path, Owner(**(vars(owner) | {"machine": f"{host} before-the-restart"})), silence_s=50)
    assert isinstance(take_claim(tmp_path, "cell", timeout_s=40), Claim)


def test_claim_that_was_never_written_dies_of_age(tmp_path: Path) -> None:
    write_claim(tmp_path, silence_s=50)
    assert isinstance(take_claim(tmp_path, "cell", timeout_s=60), Owner)
    assert isinstance(take_claim(tmp_path, "cell", timeout_s=40), Claim)


def test_claim_is_touched_while_it_is_held(tmp_path: Path) -> None:
    claim = take_claim(tmp_path, "cell", heartbeat_s=0.01)
    assert isinstance(claim, Claim)
    with claim:
        path = tmp_path / "cell.0"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_claim_keeps_space_for_a_row_until_it_is_freed(tmp_path: Path) -> None:
    claim = take_claim(tmp_path, "cell")
    assert isinstance(claim, Claim)
    with claim:
        path = tmp_path / "cell.0"
        assert path.stat().st_size == 65536
        claim.free_space()
        assert path.stat().st_size < 500
        assert isinstance(take_claim(tmp_path, "cell"), Owner)


def test_full_disk_is_found_before_the_work_and_leaves_no_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gift_cl.evaluation.claims.os.fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        take_claim(tmp_path, "cell")
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_find_a_dead_claim_one_takes_it_over(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    owner = own_claim(tmp_path)
    names = [f"cell{number}" for number in range(100)]
    for name in names:
        (tmp_path / f"{name}.0").write_text(json.dumps(vars(owner) | {"pid": dead.pid}))
    barrier, won = threading.Barrier(4), []

    def race() -> None:
        for name in names:
            barrier.wait()
            claim = take_claim(tmp_path, name)
            barrier.wait()  # nobody gives back before all have asked
            if isinstance(claim, Claim):
                with claim:
                    won.append(name)

    racers = [threading.Thread(target=race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert sorted(won) == sorted(names)
    assert list(tmp_path.iterdir()) == []
