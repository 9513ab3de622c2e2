import functools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gift_cl.codecs import build_codec
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.dataset_file import save_dataset
from gift_cl.evaluation.accuracy import Accuracy
from gift_cl.evaluation.cell import Cell
from gift_cl.evaluation.config import EvaluationConfig
from gift_cl.evaluation.grid import expand, make_cells
from gift_cl.evaluation.parts import Parts
from gift_cl.models import TeacherMismatchError, build_model, find_card
from gift_cl.normalization import Normalization
from gift_cl.real_data import RealData, load_real_data, real_exemplars
from gift_cl.soft_labels import SoftLabels
from gift_cl.teacher_file import save_teacher as save_teacher_file


def make_config(root: Path, **more: Any) -> EvaluationConfig:
    values: dict[str, Any] = {"method": "tiny", "dataset": "digits", "model": "mlp:hidden=8", "ipc": 2}
    values |= {"root": str(root), "labels": "hard", "criterion_name": "ce", "view": "none", "epochs": 2}
    values |= {"normalization": "none", "device": "cpu"}
    return EvaluationConfig(**values | more)


def cells_of(config: EvaluationConfig, **parts: Any) -> list[Cell]:
    return make_cells(config, Parts(config, **parts))


@functools.cache
def digits(image_size: int | None = None) -> RealData:
    return load_real_data("digits", image_size=image_size)


def load(name: str, *, image_size: int | None, **others: Any) -> RealData:
    """As `load_real_data`, which reads the digits once."""
    return digits(image_size) if name == "digits" else load_real_data(name, image_size=image_size, **others)


def distilled(seed: int = 0) -> DistilledDataset:
    data = real_exemplars(digits(), ipc=2, seed=seed)
    return replace(data, provenance=Provenance(method="tiny", source="somewhere"))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gift_cl.evaluation.parts.load_real_data", load)
    save_dataset(distilled(), tmp_path / "data/syn_data/tiny/digits_mlp/ipc2/data.safetensors")
    return tmp_path / "data"


def save_teacher(path: Path) -> Path:
    torch.manual_seed(0)  # by chance, weights may look like those of a teacher with other classes
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(build_model("mlp:hidden=8", in_channels=1, image_size=8, num_classes=10).state_dict(), path)
    return path


def test_grid_is_the_product_of_its_lists_and_ends_one_seed_after_another() -> None:
    lists: dict[str, Any] = {"criterion_name": ["gift", "kl"], "optimizer": ["SGD", "AdamW"]}
    lists |= {"lr": [0.1, 0.01], "model": ["a", "b"], "tar_model": ["c"], "seed": [1, 0]}
    config = EvaluationConfig(method="m", dataset="d", ipc=1, **lists)
    points = expand(config)
    assert len(points) == len(set(points)) == 2 * 2 * 2 * 2 * 2
    assert [p.seed for p in points] == [1] * 16 + [0] * 16
    assert [p.lr for p in points[:4]] == [0.1, 0.01, 0.1, 0.01]
    assert [p.optimizer for p in points[:4]] == ["SGD", "SGD", "AdamW", "AdamW"]
    assert [p.model for p in points[:16]] == ["a"] * 8 + ["b"] * 8
    assert points == expand(config)


def test_images_are_found_below_the_root(root: Path) -> None:
    (cell,) = cells_of(make_config(root))
    assert torch.equal(cell.exemplars.images, distilled().images)
    assert cell.data == str(root / "syn_data/tiny/digits_mlp/ipc2/data.safetensors")
    assert (cell.method, cell.dataset, cell.model, cell.student) == ("tiny", "digits", *["mlp:hidden=8"] * 2)
    assert len(cell.test) == 360
    assert cell.teacher is None
    assert cell.validation is None


def test_images_are_read_from_a_path_that_is_given(root: Path, tmp_path: Path) -> None:
    save_dataset(distilled(seed=1), tmp_path / "mine.safetensors")
    (cell,) = cells_of(make_config(root, data=str(tmp_path / "mine.safetensors")))
    assert torch.equal(cell.exemplars.images, distilled(seed=1).images)


def test_recipe_is_the_preset_and_what_is_said_otherwise(root: Path) -> None:
    (cell,) = cells_of(make_config(root, lr=0.5, schedule="cosine"))
    assert (cell.recipe.optimizer, cell.recipe.weight_decay) == ("AdamW", 1e-4)  # of GIFT
    assert (cell.recipe.lr, cell.recipe.schedule, cell.recipe.epochs) == (0.5, "cosine", 2)
    (cell,) = cells_of(make_config(root, preset="rded"))
    assert (cell.recipe.weight_decay, cell.recipe.schedule) == (0.01, "half_cosine")


def test_methods_own_recipe_is_known_by_its_name(root: Path) -> None:
    own = make_config(root, method="rded", preset="own")
    (cell,) = cells_of(own, dataset=distilled())
    assert (cell.preset, cell.recipe.schedule) == ("rded", "half_cosine")
    with pytest.raises(ValueError, match=r"`tiny` has no recipe of its own\. Choose a `preset`: gift"):
        cells_of(make_config(root, preset="own"))


def test_student_may_be_another_network_than_the_one_of_the_images(root: Path) -> None:
    students = ["mlp:hidden=4", "mlp:hidden=16"]
    cells = cells_of(make_config(root, tar_model=students))
    assert [cell.student for cell in cells] == students
    assert {cell.model for cell in cells} == {"mlp:hidden=8"}


def test_identity_of_a_cell_does_not_depend_on_where_it_runs_or_writes(root: Path) -> None:
    (cell,) = cells_of(make_config(root))
    others = {"out": "elsewhere", "tracking": "disabled", "group": "g", "retry_failed": True}
    assert cells_of(make_config(root, **others))[0].cell_id == cell.cell_id
    assert replace(cell, device="cuda", data="moved").cell_id == cell.cell_id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"lr": 0.1},
        {"criterion_name": "gift"},
        {"epochs": 3},
        {"model": "mlp:hidden=9"},
        {"evaluate_on": "validation"},
        {"validation_share": 0.2},
        {"method": "random"},
    ],
)
def test_identity_of_a_cell_depends_on_what_determines_its_result(root: Path, change: dict[str, Any]) -> None:
    save_dataset(distilled(), root / "syn_data/tiny/digits_mlp/ipc2/data.safetensors")
    ids = {cells_of(make_config(root, **what))[0].cell_id for what in ({}, change)}
    assert len(ids) == 2


def test_identity_of_a_cell_depends_on_the_content_of_the_images(root: Path) -> None:
    (before,) = cells_of(make_config(root))
    save_dataset(distilled(seed=1), root / "syn_data/tiny/digits_mlp/ipc2/data.safetensors")
    (after,) = cells_of(make_config(root))
    assert before.cell_id != after.cell_id


def test_random_images_are_drawn_anew_for_each_seed_from_training_images(root: Path) -> None:
    one, two = cells_of(make_config(root, method="random", seed=[0, 1]))
    assert not torch.equal(one.exemplars.images, two.exemplars.images)
    assert one.exemplars.images_per_class == dict.fromkeys(range(10), 2)
    train = digits().train.images
    assert all(any(torch.equal(image, known) for known in train) for image in one.exemplars.images)
    assert one.data == two.data


def test_held_out_images_are_no_exemplars(root: Path) -> None:
    config = make_config(root, method="random", ipc=60, evaluate_on="validation", validation_share=0.5)
    (cell,) = cells_of(config)
    held = {image.numpy().tobytes() for image in cell.test.images}
    kept = {image.numpy().tobytes() for image in cell.exemplars.images}
    assert len(held) > 700
    assert not held & kept
    assert (cell.evaluated_on, cell.validation) == ("validation", None)


def test_validation_beside_the_test_leaves_the_test_images_as_they_are(root: Path) -> None:
    (cell,) = cells_of(make_config(root, validation_share=0.2))
    assert cell.validation is not None
    assert (len(cell.test), len(cell.validation), cell.evaluated_on) == (360, 287, "test")
    assert torch.equal(cell.test.images, digits().test.images)


def test_teacher_is_loaded_for_labels_on_line_and_for_herding(root: Path) -> None:
    save_teacher(root / "pretrain_models" / "digits_mlp.pth")
    online = {"labels": "online", "criterion_name": "gift"}
    (cell,) = cells_of(make_config(root, **online))
    assert cell.teacher is not None
    assert cell.teacher.classes == tuple(range(10))
    (cell,) = cells_of(make_config(root, method="herding"))
    assert cell.teacher is None
    assert len(cell.exemplars) == 20
    (cell,) = cells_of(make_config(root, method="herding", **online))
    assert cell.teacher is not None


def test_teacher_is_shared_by_the_cells(root: Path, tmp_path: Path) -> None:
    path = save_teacher(tmp_path / "weights.pth")
    config = make_config(root, labels="online", criterion_name=["gift", "kl"], teacher=str(path))
    one, two = cells_of(config)
    assert one.teacher is two.teacher


def test_normalization_of_the_teacher_is_the_students_unless_another_is_known(root: Path) -> None:
    path = str(save_teacher(root / "pretrain_models" / "digits_mlp.pth"))
    online = {"labels": "online", "criterion_name": "gift", "normalization": "0.5/0.25"}
    (cell,) = cells_of(make_config(root, **online))
    assert cell.teacher is not None
    assert cell.teacher.normalization.mean == (0.5,)
    (cell,) = cells_of(make_config(root, teacher=path, teacher_normalization="0.1/0.2", **online))
    assert cell.teacher is not None
    assert cell.teacher.normalization.mean == (0.1,)


def cifar_like() -> RealData:
    images = DistilledDataset.from_images(
        torch.zeros(10, 3, 32, 32, dtype=torch.uint8), torch.arange(10), num_classes=10
    )
    return RealData(name="cifar10", train=images, test=images)


def test_published_teacher_keeps_the_normalization_it_was_trained_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_model("conv3", in_channels=3, image_size=32, num_classes=10)
    torch.save({"model": network.state_dict()}, tmp_path / "cifar10_conv3.pth")
    config = make_config(tmp_path, dataset="cifar10", teacher=str(tmp_path / "cifar10_conv3.pth"))
    cards = []
    monkeypatch.setattr(
        "gift_cl.evaluation.parts.measure_teacher", lambda loaded, test, card: cards.append(card)
    )
    teacher = Parts(config).teacher("conv3", cifar_like(), "cifar")
    assert teacher.normalization.mean == (0.485, 0.456, 0.406)  # of ImageNet
    assert cards == [find_card("cifar10", "conv3")]


def test_published_teacher_far_below_its_card_is_refused(tmp_path: Path) -> None:
    network = build_model("conv3", in_channels=3, image_size=32, num_classes=10)
    torch.save({"model": network.state_dict()}, tmp_path / "cifar10_conv3.pth")
    config = make_config(tmp_path, dataset="cifar10", teacher=str(tmp_path / "cifar10_conv3.pth"))
    with pytest.raises(TeacherMismatchError, match=r"82\.24%"):
        Parts(config).teacher("conv3", cifar_like(), "cifar")


def test_teacher_of_our_own_file_says_itself_what_it_is(root: Path) -> None:
    network = build_model("mlp:hidden=5", in_channels=1, image_size=8, num_classes=10)
    what: dict[str, Any] = {"classes": range(10), "num_classes": 10, "dataset": "digits", "provenance": {}}
    what["accuracy"] = Accuracy(0.0, 0.5, 360)
    path = root / "pretrain_models" / "digits_mlp.safetensors"
    normalization = Normalization((0.3,), (0.2,))
    save_teacher_file(
        path, "mlp:hidden=5", network, image_shape=(1, 8, 8), normalization=normalization, **what
    )
    online = {"labels": "online", "criterion_name": "gift"}
    (cell,) = cells_of(make_config(root, **online))
    assert cell.teacher is not None
    assert cell.teacher.normalization == normalization
    pixels = digits().test.images[:4]
    expected = network.eval()((pixels / 255 - 0.3) / 0.2)
    torch.testing.assert_close(cell.teacher.logits(pixels), expected.detach())
    network = build_model("mlp:hidden=5", in_channels=1, image_size=4, num_classes=10)
    save_teacher_file(
        path, "mlp:hidden=5", network, image_shape=(1, 4, 4), normalization=normalization, **what
    )
    with pytest.raises(ValueError, match=r"\(1, 8, 8\)"):
        cells_of(make_config(root, **online))


def test_teacher_far_below_what_its_file_says_is_refused(root: Path) -> None:
    network = build_model("mlp:hidden=5", in_channels=1, image_size=8, num_classes=10)
    save_teacher_file(
        root / "pretrain_models" / "digits_mlp.safetensors",
        "mlp:hidden=5",
        network,
        classes=range(10),
        num_classes=10,
        image_shape=(1, 8, 8),
        normalization=Normalization((0.3,), (0.2,)),
        dataset="digits",
        accuracy=Accuracy(0.95, 1.0, 360),
        provenance={},
    )
    with pytest.raises(TeacherMismatchError, match=r"95\.00%, which its file says"):
        cells_of(make_config(root, labels="online", criterion_name="gift"))


def test_stored_labels_need_no_teacher(root: Path) -> None:
    data = distilled()
    logits = torch.randn(len(data), 10)
    covered = {label: tuple(range(10)) for label in range(10)}
    labelled = replace(data, soft_labels=SoftLabels(logits.flatten(), covered, 1, None))
    (cell,) = cells_of(make_config(root, labels="stored", criterion_name="gift"), dataset=labelled)
    assert cell.teacher is None
    assert cell.exemplars is labelled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ipc": 3}, r"at IPC 3; looked at `.*ipc3`"),
        (
            {"labels": "online", "criterion_name": "gift"},
            "No teacher mlp:hidden=8 for digits; looked at .* with `teacher`, or choose `labels`",
        ),
        (
            {"method": "herding"},
            r"No teacher .* Put its weights there, or say where they are with `teacher`\.$",
        ),
        ({"dataset": "unheard-of", "data": "{data}"}, "Unknown data set `unheard-of`"),
        ({"data": "nowhere"}, "No distilled data set at `nowhere`"),
        ({"data": "{data}", "ipc": 3}, "at least `ipc` = 3 images of each class"),
        ({"criterion_name": "gitf"}, "Unknown loss `gitf`. Known: gift"),
        ({"optimizer": "SDG"}, "Unknown optimizer `SDG`"),
        ({"preset": "best"}, "Unknown preset `best`. Known: gift"),
        ({"image_size": 16}, "`image_size` for random, herding, coverage only, got 16"),
        ({"teacher": "weights.pth"}, "no `teacher` for `labels` hard"),
        ({"stream": "labels"}, "no `stream` for `labels` hard"),
        ({"labels": "stream", "criterion_name": "kl"}, "Expected `stream` for `labels` stream"),
        ({"device": "warp"}, "`device` of this machine, got `warp`"),
        ({"method": "random", "ipc": 500}, "at most 1[0-9]{2} for `ipc`"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_any_training(
    root: Path, change: dict[str, Any], message: str
) -> None:
    data = root / "syn_data/tiny/digits_mlp/ipc2/data.safetensors"
    change = {name: str(data) if value == "{data}" else value for name, value in change.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        cells_of(make_config(root, **change))


def test_teacher_of_another_number_of_classes_is_refused(root: Path, tmp_path: Path) -> None:
    network = build_model("mlp:hidden=8", in_channels=1, image_size=8, num_classes=7)
    torch.save(network.state_dict(), tmp_path / "seven.pth")
    config = make_config(root, labels="online", criterion_name="gift", teacher=str(tmp_path / "seven.pth"))
    with pytest.raises(ValueError, match="do not fit"):
        cells_of(config)


def test_images_with_another_number_a_class_are_refused(root: Path) -> None:
    uneven = distilled().select(torch.arange(19))
    with pytest.raises(ValueError, match="`ipc` = 2 images of each class in somewhere, got 1 to 2"):
        cells_of(make_config(root), dataset=uneven)


def test_real_images_are_whitened_where_the_distilled_ones_are(root: Path) -> None:
    whitened = replace(
        distilled(), encoded=build_codec("float32").encode(torch.randn(20, 1, 8, 8)), space="zca"
    )
    config = make_config(root, normalization=None)
    one, two = cells_of(replace(config, seed=[0, 1]), dataset=whitened)
    assert one.whitening is not None
    assert one.whitening is two.whitening
    assert one.recipe.normalization == "none"
    mean = one.whitening.apply(digits().train.images.float() / 255).mean(0)
    torch.testing.assert_close(mean, torch.zeros(1, 8, 8), atol=1e-3, rtol=0)
