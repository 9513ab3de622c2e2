"""Where distilled images and teachers are looked for: in the layout of GIFT's code, below a root.

``{root}/syn_data/{method}/{dataset}_{model}/ipc{ipc}`` is a folder with a ``data.pt``, with images in
folders, or with one ``.safetensors``; or it is a file that ends in ``.safetensors`` or ``.zip``.
``{root}/pretrain_models/{dataset}_{model}.pth``, or ``.safetensors``, is a teacher. The model is the network
that the images were distilled with. GIFT's own code has ``syn_data`` in the present folder and
``pretrain_models`` in ``data``; the present folder is looked into second.

Source: LINs-lab/GIFT@38db552, LINs-lab/RDED@3f6453d.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def find_data(*, root: Path, method: str, dataset: str, model: str, ipc: int) -> Path:
    """What holds the distilled images, for `gift_cl.readers.read_dataset`.

    Args:
        root: Folder of all data.
        method: What distilled them; options do not matter here.
        dataset: Name of the real data.
        model: Network that they were distilled with; options do not matter here.
        ipc: Images a class.

    Raises:
        FileNotFoundError: If there is nothing; the message says where it should be.
    """
    inner = Path("syn_data", _name(method), f"{dataset}_{_name(model)}")
    names = [f"ipc{ipc}{ending}" for ending in ("", ".safetensors", ".zip")]
    places = [base / inner / name for base in _bases(root) for name in names]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise FileNotFoundError(
            f"No images of `{method}` for {dataset} with {model} at IPC {ipc}; looked at {_listed(places)}. "
            "Put them there, or say where they are with `data`."
        )
    files = sorted(found.glob("*.safetensors")) if found.is_dir() else []
    files = [file for file in files if not file.name.endswith(".labels.safetensors")]
    return files[0] if len(files) == 1 else found


def find_teacher(*, root: Path, dataset: str, model: str, cure: str) -> Path:
    """The weights of the teacher.

    Args:
        root: Folder of all data.
        dataset: Name of the real data.
        model: Its network; options do not matter here.
        cure: What else the user may do if there are none, for the end of the message.

    Raises:
        FileNotFoundError: If there are none; the message says where they should be.
    """
    names = [f"{dataset}_{_name(model)}{ending}" for ending in (".pth", ".safetensors")]
    places = [base / "pretrain_models" / name for base in _bases(root) for name in names]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"No teacher {model} for {dataset}; looked at {_listed(places)}. Put its weights there, {cure}."
        )
    return found


def _bases(root: Path) -> list[Path]:
    return list(dict.fromkeys((root, Path())))


def _name(spec: str) -> str:
    return spec.partition(":")[0]


def _listed(places: Sequence[Path]) -> str:
    return ", ".join(f"`{place}`" for place in places)
