import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gift_cl.json_lines import append_json_lines, read_json_lines


def test_what_is_appended_comes_back_with_the_numbers_of_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.jsonl"
    append_json_lines(file, [{"a": "ä\n"}, 3])
    append_json_lines(file, [[1.5]])
    assert read_json_lines(file) == [(1, {"a": "ä\n"}), (2, 3), (3, [1.5])]
    assert file.read_bytes().count(b"\n") == 3


def test_blank_lines_are_no_values(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n1\n  \n2\n")
    assert read_json_lines(file) == [(2, 1), (4, 2)]


def test_torn_line_is_closed_before_more_is_appended(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    append_json_lines(file, [1])
    with file.open("a") as handle:
        handle.write('{"half')
    append_json_lines(file, [2])
    with pytest.warns(UserWarning, match=r"Skipped what is no whole row in `.*rows\.jsonl`: line 2\."):
        assert read_json_lines(file) == [(1, 1), (3, 2)]


def test_warning_names_the_line_of_the_reader(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("{")
    with pytest.warns(UserWarning, match="line 1") as caught:
        read_json_lines(file)
    assert caught[0].filename == __file__


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json_lines(tmp_path / "rows.jsonl")


def test_full_disk_keeps_the_number_of_its_error(tmp_path: Path) -> None:
    (tmp_path / "full").symlink_to("/dev/full")  # every write to it says that the disk is full
    with pytest.raises(OSError, match="No space left") as caught:
        append_json_lines(tmp_path / "full", [1])
    assert caught.value.errno == errno.ENOSPC


def test_lines_that_are_appended_at_once_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(_append_many, [file] * 3, range(3)))
    values = [value for _, value in read_json_lines(file)]
    assert sorted(json.dumps(v) for v in values) == sorted(
        json.dumps([who, number, "x" * 5000]) for who in range(3) for number in range(20)
    )


def _append_many(file: Path, who: int) -> None:
    for number in range(20):
        append_json_lines(file, [[who, number, "x" * 5000]])
        os.sched_yield()
