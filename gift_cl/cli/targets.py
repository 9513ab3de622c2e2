"""Where a command writes, checked before it reads anything."""

from __future__ import annotations

from pathlib import Path

from gift_cl.files import check_writable


def check_targets(*files: Path | None, folder: Path | None = None, overwrite: bool) -> None:
    """Whether results can be written.

    Args:
        files: To write; None where one is not asked for.
        folder: To write, if one is asked for.
        overwrite: Whether they may be there already.

    Raises:
        ValueError: If they are, or a file is a folder.
        OSError: If a folder cannot be written into.
    """
    asked = [path for path in files if path is not None]
    for path in asked:
        if path.is_dir():
            raise ValueError(f"Expected a file to write, got the folder `{path}`.")
    for path in filter(None, (*asked, folder)):
        if path.exists() and not overwrite:
            raise ValueError(f"`{path}` is there already. Choose another name, or pass `--overwrite`.")
    for path in asked:
        check_writable(path)
