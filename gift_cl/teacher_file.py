"""Teachers in files: safetensors with JSON metadata and hashes; or as others publish them.

A file says all that is needed to use a teacher: network, classes, normalisation, and the accuracy that it
reached. Nothing in a file is executed, and what is read is verified.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gift_cl.evaluation.accuracy import Accuracy
from gift_cl.models import build_model, load_weights
from gift_cl.normalization import Normalization, build_normalization
from gift_cl.sealed import read_sealed, reporting_damage, write_sealed
from gift_cl.teacher import Teacher

FORMAT = "gift-cl-teacher/1"
_CURE = "Get the file again, or train the teacher again with `gift-cl teacher train`."
_TORCH_FILES = (b"PK\x03\x04", b"\x80\x02\x8a")  # a zip; or torch's first format, a pickle of a long number

Kinds = type | tuple[type, ...]
_NUMBER = (int, float)
_HEADER: dict[str, Kinds] = {
    **dict.fromkeys(("format", "model", "dataset"), str),
    **dict.fromkeys(("in_channels", "image_size", "num_classes"), int),
    **dict.fromkeys(("normalization", "accuracy", "provenance"), dict),
    "classes": list,
    "class_names": (list, type(None)),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedTeacher:
    """A teacher, and what is known of it.

    Args:
        teacher: Ready to answer.
        model: Spec of its network.
        image_shape: Channels, height and width of the images that it takes; they are square.
        num_classes: Its outputs ``C``.
        class_names: Name of each class, if known.
        dataset: That it was trained on, if known.
        accuracy: On the test images when its training had ended, if known.
        provenance: How it was trained: settings, versions and so on, as JSON holds them.
    """

    teacher: Teacher
    model: str
    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...] | None = None
    dataset: str | None = None
    accuracy: Accuracy | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


def save_teacher(
    path: str | os.PathLike[str],
    model_spec: str,
    model: nn.Module,
    *,
    classes: Iterable[int],
    num_classes: int,
    normalization: Normalization,
    image_shape: tuple[int, int, int],
    dataset: str,
    accuracy: Accuracy,
    class_names: Sequence[str] | None = None,
    provenance: Mapping[str, Any],
) -> None:
    """Write a teacher, equal ones as equal bytes; an old file is replaced when the new one is complete.

    Args:
        path: File to write.
        model_spec: What `gift_cl.models.build_model` builds ``model`` from.
        model: Trained; not changed.
        classes: That it was trained on.
        num_classes: Its outputs ``C``.
        normalization: What it expects of its inputs.
        image_shape: Channels, height and width of its images.
        dataset: Name of its data set.
        accuracy: On the test images, measured when the training had ended.
        class_names: Name of each class.
        provenance: How it was trained, with all settings and the seed; JSON has to hold it.

    Raises:
        ValueError: If the weights are not those of ``model_spec`` or not finite, or the parts do not fit.
        TypeError: If a part is of another kind.
        OSError: If the file cannot be written, as on a full disk; the message names it.
    """
    channels, height, width = image_shape
    if height != width:
        raise ValueError(f"Expected an `image_shape` that is square, got {height} x {width}.")
    # Clones share no memory, which safetensors asks for.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    header = {
        "format": FORMAT,
        "model": model_spec,
        "in_channels": channels,
        "image_size": height,
        "num_classes": num_classes,
        "classes": [int(label) for label in classes],
        "class_names": None if class_names is None else list(class_names),
        "normalization": asdict(normalization),
        "dataset": dataset,
        "accuracy": asdict(accuracy),
        "provenance": dict(provenance),
    }
    _assemble(json.loads(json.dumps(header, allow_nan=False)), tensors)  # what is written can be read
    write_sealed(path, header, tensors)


def load_teacher(
    path: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    model: str | None = None,
    normalization: str | None = None,
    num_classes: int | None = None,
    image_shape: tuple[int, int, int] | None = None,
) -> LoadedTeacher:
    """A teacher that `save_teacher` wrote, or the published weights of one.

    A file of `save_teacher` says everything itself, and all hashes are verified. Published weights are read
    by `gift_cl.models.load_weights`, and need the four last arguments; they count as trained on all
    classes. Nothing in a file is executed, and torch's random state stays as it is.

    Args:
        path: File to read.
        device: Where the teacher will answer.
        model: Spec of the network.
        normalization: What it expects, as `gift_cl.normalization.build_normalization` takes it.
        num_classes: Its outputs.
        image_shape: Channels, height and width of its images.

    Raises:
        FileNotFoundError: If there is no such file.
        DamagedFileError: If the file is damaged, or its parts do not fit together.
        ValueError: If published weights do not fit the network, an argument is missing for them, or one
            contradicts what a file says.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"No teacher at `{os.fspath(path)}`.")
    given = {
        "model": model,
        "normalization": normalization and build_normalization(normalization),
        "num_classes": num_classes,
        "image_shape": image_shape,
    }
    if is_teacher_file(path):
        with reporting_damage(path, "a teacher", _CURE):
            header, tensors = read_sealed(path, [FORMAT])
            del header["tensors"]
            loaded = _assemble(header, tensors)
        said = vars(loaded) | {"normalization": loaded.teacher.normalization}
        for name, value in given.items():
            if value is not None and value != said[name]:
                raise ValueError(
                    f"Expected `{name}` {said[name]!r}, which `{os.fspath(path)}` says, got {value!r}. "
                    "Leave it out."
                )
    elif model is None or normalization is None or num_classes is None or image_shape is None:
        missing = ", ".join(f"`{name}`" for name, value in given.items() if value is None)
        raise ValueError(
            f"Expected {missing} with `{os.fspath(path)}`: published weights do not say what they were "
            "trained with. Those of RDED and GIFT take the normalisation `imagenet`."
        )
    else:
        with torch.random.fork_rng(devices=[]):
            network = build_model(
                model, in_channels=image_shape[0], image_size=image_shape[1], num_classes=num_classes
            )
        load_weights(network, path)
        teacher = Teacher(
            network, classes=range(num_classes), normalization=build_normalization(normalization)
        )
        loaded = LoadedTeacher(teacher=teacher, model=model, image_shape=image_shape, num_classes=num_classes)
    loaded.teacher.model.to(device)
    return loaded


def is_teacher_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file is one of `save_teacher`, as far as its start tells, and none of torch."""
    with open(path, "rb") as file:
        start = file.read(9)
    return start[8:] == b"{" or not start.startswith(_TORCH_FILES)


def _assemble(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LoadedTeacher:
    """The teacher that a header and tensors describe, once all of it has been checked."""
    _check_kinds("metadata", header, _HEADER)
    channels, size, num_classes = header["in_channels"], header["image_size"], header["num_classes"]
    classes, names = header["classes"], header["class_names"]
    _check_all("classes", classes, int)
    if len(set(classes)) < len(classes) or not all(0 <= label < num_classes for label in classes):
        raise ValueError(f"Expected `classes` in [0, {num_classes}), each once, got {classes}.")
    if names is not None:
        _check_all("class_names", names, str)
        if len(names) != num_classes:
            raise ValueError(f"Expected {num_classes} `class_names`, one for each class, got {len(names)}.")
    normalization = _normalization(header["normalization"], channels)
    network = _network(header["model"], (channels, size, num_classes), tensors)
    return LoadedTeacher(
        teacher=Teacher(network, classes=classes, normalization=normalization),
        model=header["model"],
        image_shape=(channels, size, size),
        num_classes=num_classes,
        class_names=None if names is None else tuple(names),
        dataset=header["dataset"],
        accuracy=_accuracy(header["accuracy"]),
        provenance=header["provenance"],
    )


def _network(spec: str, sizes: tuple[int, int, int], tensors: Mapping[str, Tensor]) -> nn.Module:
    """The network of a spec with these weights; one that asks for much larger ones takes no memory."""
    channels, size, num_classes = sizes
    build = partial(build_model, spec, in_channels=channels, image_size=size, num_classes=num_classes)
    mismatch = (
        f"Expected the weights of `{spec}` for {channels} x {size} x {size} pixels and {num_classes} "
        "classes, got others: "
    )
    try:
        with torch.device("meta"):
            network = build()
    except NotImplementedError:  # it computes with tensors while it is built, as RegNets do
        lengths = {length for tensor in tensors.values() for length in tensor.shape}
        if not {channels, num_classes} <= lengths:
            raise ValueError(f"{mismatch}none for so many channels or classes.") from None
        with torch.random.fork_rng(devices=[]):
            network = build()
    expected = {name: (tensor.shape, tensor.dtype) for name, tensor in network.state_dict().items()}
    found = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    if expected != found:
        odd = next(name for name in [*expected, *found] if expected.get(name) != found.get(name))
        raise ValueError(f"{mismatch}`{odd}` differs.")
    network.load_state_dict(dict(tensors), assign=True)
    return network


def _normalization(entry: dict[str, Any], channels: int) -> Normalization:
    _check_kinds("normalization", entry, {"mean": list, "std": list})
    for name, values in entry.items():
        _check_all(name, values, _NUMBER)
    if len(entry["mean"]) not in (1, channels):
        raise ValueError(f"Expected a `normalization` of {channels} channels, got {len(entry['mean'])}.")
    return Normalization(tuple(entry["mean"]), tuple(entry["std"]))


def _accuracy(entry: dict[str, Any]) -> Accuracy:
    _check_kinds("accuracy", entry, {"top1": _NUMBER, "top5": _NUMBER, "n": int})
    if not 0 <= entry["top1"] <= entry["top5"] <= 1 <= entry["n"]:
        raise ValueError(f"Expected accuracies 0 <= top1 <= top5 <= 1 of at least one image, got {entry}.")
    return Accuracy(**entry)


def _check_kinds(name: str, entry: Mapping[str, object], kinds: Mapping[str, Kinds]) -> None:
    if set(entry) != set(kinds):
        raise ValueError(
            f"Expected `{name}` with {', '.join(sorted(kinds))}, got {', '.join(sorted(entry))}."
        )
    for key, value in entry.items():
        _check_all(key, [value], kinds[key])


def _check_all(name: str, values: Iterable[object], kinds: Kinds) -> None:
    for value in values:
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise TypeError(f"Expected `{name}` of another type, got {reprlib.repr(value)}.")
