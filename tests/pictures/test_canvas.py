from pathlib import Path

import pytest

from gift_cl.pictures.canvas import new_figure, save_figure


def test_a_figure_is_a_png(tmp_path: Path) -> None:
    save_figure(new_figure(2)[0], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("tiny_files")
def test_a_full_disk_is_named_and_keeps_the_old_figure(tmp_path: Path) -> None:
    (tmp_path / "figure.png").write_bytes(b"old")
    with pytest.raises(OSError, match=r"Cannot write `.*figure.png`: File too large. Make space"):
        save_figure(new_figure(2)[0], tmp_path / "figure.png")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("figure.png", b"old")]
