from pathlib import Path

import pytest

from gift_cl.evaluation.lookup import find_data, find_teacher

WHAT = {"method": "rded", "dataset": "cifar100", "model": "conv3", "ipc": 10}
INNER = Path("syn_data/rded/cifar100_conv3")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path


def find(root: Path, **other: object) -> Path:
    return find_data(root=root, **WHAT | other)  # type: ignore[arg-type]


@pytest.mark.parametrize("inside", ["data.pt", "00000/class00000_id00000.jpg"])
def test_folder_of_the_paper_is_found(tmp_path: Path, inside: str) -> None:
    touch(tmp_path / INNER / "ipc10" / inside)
    assert find(tmp_path) == tmp_path / INNER / "ipc10"


def test_one_safetensors_in_the_folder_is_the_data_set_and_its_labels_are_not(tmp_path: Path) -> None:
    file = touch(tmp_path / INNER / "ipc10" / "mine.safetensors")
    touch(tmp_path / INNER / "ipc10" / "mine.labels.safetensors")
    assert find(tmp_path) == file


@pytest.mark.parametrize("name", ["ipc10.safetensors", "ipc10.zip"])
def test_file_in_the_place_of_the_folder_is_found(tmp_path: Path, name: str) -> None:
    file = touch(tmp_path / INNER / name)
    assert find(tmp_path) == file


def test_options_of_method_and_model_do_not_matter(tmp_path: Path) -> None:
    file = touch(tmp_path / INNER / "ipc10.zip")
    assert find(tmp_path, method="rded:factor=2", model="conv3:norm=instance") == file


def test_root_comes_before_the_present_folder(tmp_path: Path) -> None:
    touch(INNER / "ipc10" / "data.pt")
    assert find(tmp_path) == INNER / "ipc10"
    touch(tmp_path / INNER / "ipc10" / "data.pt")
    assert find(tmp_path) == tmp_path / INNER / "ipc10"


def test_missing_images_say_every_place_that_was_looked_at(tmp_path: Path) -> None:
    touch(tmp_path / INNER / "ipc50" / "data.pt")
    with pytest.raises(FileNotFoundError, match="at IPC 10; looked at") as caught:
        find(tmp_path)
    for root in (tmp_path, Path()):
        for ending in ("", ".safetensors", ".zip"):
            assert f"`{root / INNER / 'ipc10'}{ending}`" in str(caught.value)
    assert "with `data`" in str(caught.value)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_teacher_is_found_beside_the_images(tmp_path: Path, ending: str) -> None:
    file = touch(tmp_path / "pretrain_models" / f"cifar100_conv3.{ending}")
    found = find_teacher(root=tmp_path, dataset="cifar100", model="conv3:width=64", cure="")
    assert found == file


def test_missing_teacher_says_where_it_should_be_and_what_else_may_be_done(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"looked at `.*pretrain_models/cifar100_conv3\.pth`.* Put its weights there, or do without\.$",
    ):
        find_teacher(root=tmp_path, dataset="cifar100", model="conv3", cure="or do without")
