import contextlib
import hashlib
import json
import os
import pickle
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gift_cl.errors import DamagedFileError, UnsafeFileError
from gift_cl.evaluation.accuracy import Accuracy
from gift_cl.models import build_model
from gift_cl.normalization import Normalization
from gift_cl.teacher_file import LoadedTeacher, load_teacher, save_teacher

SPEC = "conv3:width=2"
NORMALIZATION = Normalization((0.5, 0.4, 1 / 3), (0.25, 0.2, 0.1))
NAMES = ("cat", 'a "dog"', "Öl", "ship", "frog")
PROVENANCE = {"settings": {"lr": 0.1, "seed": 3, "view": "flip"}, "seconds": 1.5, "validation": None}
SIZES = {"in_channels": 3, "image_size": 8, "num_classes": 5}


def make_model(spec: str = SPEC, *, seed: int = 0) -> nn.Module:
    """With weights and statistics of batch norms that nobody else has."""
    torch.manual_seed(seed)
    model = build_model(spec, **SIZES)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.copy_(torch.rand(tensor.shape) + 0.1 if tensor.is_floating_point() else tensor + 7)
    return model


def save(path: Path, model: nn.Module | None = None, **changes: Any) -> None:
    settings: dict[str, Any] = {
        "classes": [0, 3, 1],
        "num_classes": 5,
        "normalization": NORMALIZATION,
        "image_shape": (3, 8, 8),
        "dataset": "toys",
        "accuracy": Accuracy(0.625, 0.75, 16),
        "class_names": NAMES,
        "provenance": PROVENANCE,
    }
    spec = changes.pop("spec", SPEC)
    save_teacher(path, spec, model or make_model(), **(settings | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.safetensors"
    save(path)
    return path


def pixels(count: int = 6) -> Tensor:
    return torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(1)).byte()


def read_raw(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()["gift_cl"])
        return header, {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118


def write_raw(
    path: Path, header: dict[str, Any], tensors: dict[str, Tensor], changes: dict[str, Any] | None = None
) -> None:
    """Write a file with correct hashes, whatever it says: an independent writer of the format."""
    header = {name: value for name, value in header.items() if name != "sha256"}
    header["tensors"] = {
        name: {
            "dtype": str(tensor.dtype)[6:],
            "shape": list(tensor.shape),
            "sha256": hashlib.sha256(tensor.numpy().tobytes()).hexdigest(),
        }
        for name, tensor in tensors.items()
    }
    header |= changes or {}
    header["sha256"] = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()
    save_file(tensors, path, metadata={"gift_cl": json.dumps(header)})


def is_same(loaded: LoadedTeacher) -> bool:
    expected, found = make_model().state_dict(), loaded.teacher.model.state_dict()
    facts = (loaded.model, loaded.image_shape, loaded.num_classes, loaded.class_names, loaded.dataset)
    return (
        facts == (SPEC, (3, 8, 8), 5, NAMES, "toys")
        and loaded.accuracy == Accuracy(0.625, 0.75, 16)
        and loaded.provenance == PROVENANCE
        and loaded.teacher.classes == (0, 3, 1)
        and loaded.teacher.normalization == NORMALIZATION
        and list(expected) == list(found)
        and all(torch.equal(expected[name], found[name]) for name in expected)
    )


def refused(path: Path, match: str) -> None:
    before = sorted(os.listdir(path.parent))
    with pytest.raises(DamagedFileError, match=match) as caught:
        load_teacher(path)
    assert str(path) in str(caught.value)
    assert "train the teacher again" in str(caught.value)
    assert sorted(os.listdir(path.parent)) == before


def test_everything_that_is_saved_is_loaded(path: Path) -> None:
    assert is_same(load_teacher(path))


def test_a_loaded_teacher_answers_as_the_model_did(path: Path) -> None:
    model = make_model().eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (NORMALIZATION.mean, NORMALIZATION.std))
    with torch.no_grad():
        expected = model((pixels().float() / 255 - mean) / std)
    torch.testing.assert_close(load_teacher(path).teacher.logits(pixels()), expected, rtol=0, atol=0)


@pytest.mark.parametrize("spec", ["mlp:hidden=3", "conv3:norm=instance,width=4"])
def test_other_networks_are_kept_too(tmp_path: Path, spec: str) -> None:
    model = make_model(spec)
    save(tmp_path / "file", model, spec=spec)
    state = load_teacher(tmp_path / "file").teacher.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_a_network_that_computes_while_it_is_built_is_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("regnet_x_400mf", in_channels=3, image_size=32, num_classes=5)
    save(tmp_path / "file", model, spec="regnet_x_400mf", image_shape=(3, 32, 32))
    before = torch.get_rng_state()
    state = load_teacher(tmp_path / "file").teacher.model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)


def test_saving_changes_neither_the_model_nor_its_mode(tmp_path: Path) -> None:
    model = make_model().train().to(memory_format=torch.channels_last)
    save(tmp_path / "file", model)
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert is_same(load_teacher(tmp_path / "file"))


def test_equal_teachers_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


def test_loading_leaves_random_numbers_and_the_file_alone(path: Path) -> None:
    state, data = torch.get_rng_state(), path.read_bytes()
    loaded = load_teacher(path)
    assert torch.equal(torch.get_rng_state(), state)
    assert path.read_bytes() == data
    path.write_bytes(bytes(len(data)))
    assert is_same(loaded)  # nothing is mapped from the file


def test_the_format_is_what_an_independent_writer_writes(path: Path, tmp_path: Path) -> None:
    header, tensors = read_raw(path)
    assert header["format"] == "gift-cl-teacher/1"
    assert sorted(header) == [
        *("accuracy", "class_names", "classes", "dataset", "format", "image_size", "in_channels", "model"),
        *("normalization", "num_classes", "provenance", "sha256", "tensors"),
    ]
    assert header["accuracy"] == {"top1": 0.625, "top5": 0.75, "n": 16}
    write_raw(tmp_path / "other", header, tensors)
    assert is_same(load_teacher(tmp_path / "other"))


@pytest.mark.parametrize("start", [0, 1, 2])
def test_flipped_bits_are_noticed_wherever_they_are(path: Path, start: int) -> None:
    data = path.read_bytes()
    harmless = 0
    for position in [*range(10), *range(10 + start, len(data), 31)]:
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        path.write_bytes(changed)
        try:
            assert is_same(load_teacher(path)), position
            harmless += 1
        except DamagedFileError:
            pass
    assert harmless < 8  # white space that pads the header


def test_random_damage_is_noticed_or_harmless(path: Path) -> None:
    data = path.read_bytes()
    chooser = random.Random(0)
    for _ in range(200):
        changed, position = bytearray(data), chooser.randrange(len(data))
        length = chooser.choice([1, 2, 8, 64])
        match chooser.randrange(5):
            case 0:
                changed[position : position + length] = chooser.randbytes(length)
            case 1:
                del changed[position : position + length]
            case 2:
                changed[position:position] = chooser.randbytes(length)
            case 3:
                del changed[position:]
            case _:  # digits of shapes, offsets and numbers
                digits = [i for i, byte in enumerate(changed) if 48 <= byte <= 57]
                changed[chooser.choice(digits)] = chooser.randrange(48, 58)
        path.write_bytes(changed)
        with contextlib.suppress(DamagedFileError):
            assert is_same(load_teacher(path))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(path, "Cannot read")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format": "gift-cl-teacher/2"}, "do not say `gift-cl-teacher/1`"),
        ({"model": 3}, "Expected `model` of another type, got 3"),
        ({"model": "conv9"}, "Unknown model `conv9`"),
        (
            {"model": "conv3:width=8"},
            "Expected the weights of `conv3:width=8`.*`layers.conv.0.weight` differs",
        ),
        ({"model": "conv3:width=0"}, "width"),
        ({"in_channels": "3"}, "`in_channels` of another type, got '3'"),
        ({"in_channels": 1, "normalization": {"mean": [0.5], "std": [1.0]}}, "Expected the weights of"),
        ({"in_channels": -3}, "channels"),
        ({"image_size": 8.0}, "`image_size` of another type"),
        ({"image_size": 32}, "classifier.weight"),
        ({"image_size": 1}, "Expected"),
        ({"num_classes": True}, "`num_classes` of another type"),
        ({"num_classes": 6, "class_names": None}, "`classifier.weight` differs"),
        ({"num_classes": 10**30, "class_names": None}, "Cannot read"),
        ({"classes": []}, "Expected `classes` with at least one class"),
        ({"classes": [1, 1]}, "each once, got \\[1, 1\\]"),
        ({"classes": [5]}, "Expected `classes` in \\[0, 5\\)"),
        ({"classes": [-1]}, "Expected `classes` in \\[0, 5\\)"),
        ({"classes": [1.0]}, "`classes` of another type"),
        ({"classes": {"1": 1}}, "`classes` of another type"),
        ({"class_names": ["a"]}, "Expected 5 `class_names`"),
        ({"class_names": [1, 2, 3, 4, 5]}, "`class_names` of another type"),
        ({"class_names": "abcde"}, "`class_names` of another type"),
        ({"normalization": None}, "`normalization` of another type"),
        ({"normalization": {"mean": [0.5]}}, "Expected `normalization` with mean, std, got mean"),
        ({"normalization": {"mean": [0.5, 0.5], "std": [1.0, 1.0]}}, "of 3 channels, got 2"),
        ({"normalization": {"mean": ["x"], "std": [1.0]}}, "`mean` of another type, got 'x'"),
        ({"normalization": {"mean": [0.5], "std": [0.0]}}, "positive `std`"),
        ({"accuracy": None}, "`accuracy` of another type"),
        ({"accuracy": {"top1": 61.3, "top5": 85.0, "n": 9}}, "Expected accuracies 0 <= top1 <= top5 <= 1"),
        ({"accuracy": {"top1": 0.5, "top5": 0.4, "n": 9}}, "Expected accuracies"),
        ({"accuracy": {"top1": 0.5, "top5": 0.6, "n": 0}}, "of at least one image"),
        ({"accuracy": {"top1": 0.5, "top5": 0.6, "n": 1.5}}, "`n` of another type"),
        ({"dataset": None}, "`dataset` of another type"),
        ({"provenance": []}, "`provenance` of another type"),
        ({"tensors": {}}, "it should hold \\[\\], and holds"),
        ({"extra": 1}, "Expected `metadata` with .*, got .*extra"),
    ],
)
def test_metadata_that_do_not_fit_are_refused(path: Path, changes: dict[str, Any], match: str) -> None:
    write_raw(path, *read_raw(path), changes)
    refused(path, match)


def test_missing_metadata_are_refused(path: Path) -> None:
    header, tensors = read_raw(path)
    del header["classes"]
    write_raw(path, header, tensors)
    refused(path, "Expected `metadata` with accuracy")


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", "[" * 100_000])
def test_tensors_of_another_program_are_refused(path: Path, text: str) -> None:
    save_file(read_raw(path)[1], path, metadata={"gift_cl": text})
    refused(path, "Cannot read")


def test_weights_that_are_not_finite_are_refused(path: Path) -> None:
    header, tensors = read_raw(path)
    tensors["classifier.bias"][2] = torch.nan
    write_raw(path, header, tensors)
    refused(path, "`classifier.bias` is not finite")


def test_weights_of_another_type_are_refused(path: Path) -> None:
    header, tensors = read_raw(path)
    tensors["classifier.bias"] = tensors["classifier.bias"].double()
    write_raw(path, header, tensors)
    refused(path, "`classifier.bias` differs")


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "mlp:hidden=1000000000000"},
        {"model": "regnet_x_400mf", "num_classes": 300_000_000, "class_names": None},
    ],
)
def test_a_file_cannot_ask_for_a_network_that_fills_the_memory(path: Path, changes: dict[str, Any]) -> None:
    write_raw(path, *read_raw(path), changes)
    refused(path, f"Expected the weights of `{changes['model']}`")


class Explosive:
    """What a pickle could do when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    path, marker = tmp_path / "teacher.pth", tmp_path / "exploded"
    path.write_bytes(pickle.dumps(Explosive(marker)))
    with pytest.raises(DamagedFileError, match="Cannot read"):
        load_teacher(path)
    torch.save({"model": Explosive(marker)}, path)
    with pytest.raises(UnsafeFileError, match=re.escape(str(path))):
        load_teacher(path, model=SPEC, normalization="imagenet", num_classes=5, image_shape=(3, 8, 8))
    assert not marker.exists()


def test_no_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No teacher at `.*nowhere`"):
        load_teacher(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="No teacher at"):
        load_teacher(tmp_path)


def dc_layout(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ConvNet under the names of DC, DATM and G-VBSM."""
    places = {"conv": 0, "norm": 1}

    def rename(name: str) -> str:
        parts = name.split(".")
        if parts[0] != "layers":
            return name
        return f"features.{4 * int(parts[2]) + places[parts[1]]}.{parts[3]}"

    return {rename(name): value for name, value in state.items()}


@pytest.mark.parametrize("layout", ["rded", "dc"])
def test_published_layouts_are_loaded(tmp_path: Path, layout: str) -> None:
    model = make_model().eval()
    state = model.state_dict()
    torch.save({"model": dc_layout(state) if layout == "dc" else state}, tmp_path / "toys_conv3.pth")
    random_state = torch.get_rng_state()
    loaded = load_teacher(
        tmp_path / "toys_conv3.pth",
        model=SPEC,
        normalization="0.5/0.25",
        num_classes=5,
        image_shape=(3, 8, 8),
    )
    assert torch.equal(torch.get_rng_state(), random_state)
    with torch.no_grad():
        expected = model((pixels().float() / 255 - 0.5) / 0.25)
    torch.testing.assert_close(loaded.teacher.logits(pixels()), expected, rtol=0, atol=0)
    assert loaded.teacher.classes == (0, 1, 2, 3, 4)
    assert (loaded.model, loaded.num_classes, loaded.accuracy, loaded.dataset) == (SPEC, 5, None, None)


def test_published_weights_need_to_be_described(tmp_path: Path) -> None:
    torch.save(make_model().state_dict(), tmp_path / "teacher.pth")
    with pytest.raises(ValueError, match=r"Expected `normalization`, `num_classes`, `image_shape` with"):
        load_teacher(tmp_path / "teacher.pth", model=SPEC)
    with pytest.raises(ValueError, match=r"Expected `model` with"):
        load_teacher(tmp_path / "teacher.pth", normalization="imagenet", num_classes=5, image_shape=(3, 8, 8))


def test_published_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(make_model().state_dict(), tmp_path / "teacher.pth")
    with pytest.raises(ValueError, match="do not fit this ConvNet.*The file has num_classes=5"):
        load_teacher(
            tmp_path / "teacher.pth",
            model=SPEC,
            normalization="imagenet",
            num_classes=7,
            image_shape=(3, 8, 8),
        )


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"model": "conv4"}, "Expected `model` 'conv3:width=2', which .* says, got 'conv4'"),
        ({"normalization": "imagenet"}, "Expected `normalization` Normalization.*got Normalization"),
        ({"num_classes": 100}, "Expected `num_classes` 5"),
        ({"image_shape": (3, 32, 32)}, r"Expected `image_shape` \(3, 8, 8\)"),
    ],
)
def test_what_a_file_says_is_not_contradicted(path: Path, given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        load_teacher(path, **given)


def test_what_a_file_says_may_be_repeated(path: Path) -> None:
    numbers = f"{','.join(map(repr, NORMALIZATION.mean))}/{','.join(map(repr, NORMALIZATION.std))}"
    assert is_same(
        load_teacher(path, model=SPEC, normalization=numbers, num_classes=5, image_shape=(3, 8, 8))
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"spec": "conv3:width=4"}, "Expected the weights of `conv3:width=4`"),
        ({"image_shape": (3, 16, 16)}, "Expected the weights of .* for 3 x 16 x 16 pixels"),
        ({"image_shape": (3, 8, 9)}, "Expected an `image_shape` that is square, got 8 x 9"),
        ({"num_classes": 4}, "Expected 4 `class_names`"),
        ({"classes": []}, "at least one class"),
        ({"classes": [7]}, r"Expected `classes` in \[0, 5\)"),
        ({"class_names": ["a", "b"]}, "Expected 5 `class_names`"),
        ({"normalization": Normalization((0.5, 0.5), (1.0, 1.0))}, "of 3 channels"),
        ({"accuracy": Accuracy(61.3, 85.0, 100)}, "Expected accuracies"),
        ({"provenance": {"loss": float("nan")}}, "JSON"),
    ],
)
def test_what_cannot_be_loaded_is_not_saved(path: Path, changes: dict[str, Any], match: str) -> None:
    before = path.read_bytes()
    with pytest.raises(ValueError, match=match):
        save(path, **changes)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_model_that_diverged_is_not_saved(tmp_path: Path) -> None:
    model = make_model()
    with torch.no_grad():
        next(model.parameters())[0, 0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="is not finite in 32 bits"):
        save(tmp_path / "file", model)
    assert not list(tmp_path.iterdir())


def test_what_json_cannot_hold_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="JSON"):
        save(tmp_path / "file", provenance={"path": Path("x")})
