"""Weights that others published, read without running what is in the file."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from gift_cl.torch_files import load_torch

_WRAPPERS = ("model", "state_dict")
_SHOWN = 6


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """State dict of a published file, under the names that the models of this package use.

    Accepts a bare state dict, or one under ``model`` (torchvision's training script, RDED, GIFT) or
    ``state_dict`` (SRe2L). Drops the prefix ``module.`` and renames two foreign layouts:

    - a ConvNet with ``features.{4d}``, ``features.{4d+1}`` (DC, DATM, G-VBSM) to ``layers.conv.d``,
      ``layers.norm.d``;
    - a ResNet with ``shortcut``, ``linear`` (G-VBSM) to ``downsample``, ``fc``.

    The file is opened by `load_torch`. Besides tensors in plain containers, ``argparse.Namespace`` is
    let through: torchvision's script stores its arguments as one, and all it can do is hold attributes.

    Args:
        path: A file written by ``torch.save``.

    Returns:
        Detached tensors on the CPU, by name, in the order of the file.

    Raises:
        OSError: If the file is missing or may not be read.
        ValueError: If the file asks for anything that could run code (it is not opened then), is
            damaged or of another format, or holds no state dict.

    Source:
        Layouts of zeyuanyin/tiny-imagenet@275c667, VILA-Lab/SRe2L@8d00cba, LINs-lab/RDED@3f6453d,
        NUS-HPC-AI-Lab/DATM@97ae510 and shaoshitong/G_VBSM_Dataset_Condensation@1ed80b0.
    """
    weights = _state_dict(load_torch(path, allow=[argparse.Namespace], legacy=True), path)
    if all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
    return _rename_resnet(_rename_convnet(weights))


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Copy the weights of a published file into a model, all of them or none.

    Args:
        model: Changed in place; keeps its device, its type and its mode.
        path: A file that `load_checkpoint` reads.

    Raises:
        OSError: If the file is missing or may not be read.
        ValueError: If the file cannot be used (see `load_checkpoint`), or a name or a shape in it
            is not the model's; the message lists them and tells what the file was built with.
    """
    found = load_checkpoint(path)
    expected: dict[str, Tensor] = model.state_dict()
    problems = [
        _listing("missing", [name for name in expected if name not in found]),
        _listing("unexpected", [name for name in found if name not in expected]),
        _listing(
            "of another shape",
            [
                f"{name} {tuple(found[name].shape)} for {tuple(value.shape)}"
                for name, value in expected.items()
                if name in found and found[name].shape != value.shape
            ],
        ),
    ]
    if any(problems):
        parts = [f"The weights in `{os.fspath(path)}` do not fit this {type(model).__name__}."]
        parts += [*filter(None, problems), _difference(_facts(found), _facts(expected))]
        raise ValueError(" ".join(filter(None, parts)))
    model.load_state_dict(found)


def _state_dict(contents: object, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict in what a file holds, bare or wrapped."""
    expected = "Expected a state dict, alone or under `model` or `state_dict`"
    if not isinstance(contents, Mapping):
        raise ValueError(f"{expected}, got {type(contents).__name__} in `{os.fspath(path)}`.")
    wrapped = [contents[key] for key in _WRAPPERS if isinstance(contents.get(key), Mapping)]
    candidate: Mapping[object, object] = wrapped[0] if wrapped else contents
    weights = {
        name: value.detach()
        for name, value in candidate.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not weights or len(weights) < len(candidate):
        others = [str(name) for name in candidate if name not in weights]
        raise ValueError(
            f"{expected}, got a dictionary in `{os.fspath(path)}` with entries that are no "
            f"tensors: {_shorten(others) or 'it is empty'}."
        )
    return weights


def _rename_convnet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with DC's ConvNet names replaced; others, such as an MLP's or VGG's, as they are."""
    first = weights.get("features.0.weight")
    if first is None or first.dim() != 4:
        return weights
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        match = re.fullmatch(r"features\.(\d+)\.(\w+)", name)
        if match is None:
            if not name.startswith("classifier."):
                return weights
            renamed[name] = value
            continue
        block, place = divmod(int(match[1]), 4)
        if place > 1:
            return weights
        renamed[f"layers.{('conv', 'norm')[place]}.{block}.{match[2]}"] = value
    return renamed


def _rename_resnet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights with the names of the CIFAR ResNet replaced by torchvision's."""
    if not any(".shortcut." in name for name in weights):
        return weights
    return {
        re.sub(r"^linear\.", "fc.", name.replace(".shortcut.", ".downsample.")): value
        for name, value in weights.items()
    }


def _facts(weights: Mapping[str, Tensor]) -> dict[str, int | str]:
    """What the shapes tell about how a model was built, by the name of the option."""
    facts: dict[str, int | str] = {}
    head = weights.get("classifier.weight", weights.get("fc.weight"))
    if head is not None and head.dim() == 2:
        facts["num_classes"], facts["num_features"] = head.shape
    stem = weights.get("layers.conv.0.weight", weights.get("conv1.weight"))
    if stem is not None and stem.dim() == 4:
        facts["width"], facts["in_channels"] = stem.shape[:2]
    if "layers.conv.0.weight" in weights:
        facts["depth"] = sum(bool(re.fullmatch(r"layers\.conv\.\d+\.weight", n)) for n in weights)
        has_norm = "layers.norm.0.weight" in weights
        has_statistics = "layers.norm.0.running_mean" in weights
        facts["norm"] = "batch" if has_statistics else "instance" if has_norm else "none"
    return facts


def _difference(found: Mapping[str, int | str], expected: Mapping[str, int | str]) -> str:
    """One sentence on how the file and the model were built differently; empty if unknown."""
    names = [name for name in found if name in expected and found[name] != expected[name]]
    if not names:
        return ""
    file_has = ", ".join(f"{name}={found[name]}" for name in names)
    model_has = ", ".join(f"{name}={expected[name]}" for name in names)
    cure = "Build the model as the file was."
    if names == ["num_features"]:
        cure = "Build the model for the image size of the file."
    return f"The file has {file_has}; the model has {model_has}. {cure}"


def _listing(kind: str, names: list[str]) -> str:
    return f"{len(names)} {kind}: {_shorten(names)}." if names else ""


def _shorten(names: Iterable[str]) -> str:
    """Names with commas, the first few only."""
    shown = list(names)
    rest = len(shown) - _SHOWN
    return ", ".join(shown[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
