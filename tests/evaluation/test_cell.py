import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny_data import NORMALIZATION, make_dataset, make_model, make_recipe, make_teacher
from torch import Tensor

from gift_cl.dataset import DistilledDataset
from gift_cl.evaluation import cell as cell_module
from gift_cl.evaluation import surroundings
from gift_cl.evaluation.accuracy import measure
from gift_cl.evaluation.cell import Cell, fresh_student, run_cell
from gift_cl.evaluation.digests import dataset_digest, teacher_digest
from gift_cl.evaluation.labelling import ClassCountError, Stream
from gift_cl.evaluation.surroundings import PeakMemory, commit, hardware, versions
from gift_cl.teacher import Teacher
from gift_cl.whitening import ZCA, fit_zca

# fmt: off
KEYS = {
    "cell_id", "method", "dataset", "data", "ipc", "num_images", "model", "tar_model", "preset",
    "loss", "labels", "optimizer", "lr", "weight_decay", "schedule", "epochs", "batch_size", "view",
    "mix", "normalization", "precision", "device", "seed", "evaluated_on", "status", "reason",
    "accuracy_last", "accuracy_best", "top5_last", "best_epoch", "curve", "validation_accuracy",
    "teacher_accuracy", "train_loss_last", "seconds", "images_per_second", "flops_per_image",
    "peak_memory_bytes", "bytes", "num_parameters", "microbatches", "versions", "commit",
    "hardware", "started", "settings",
}
# fmt: on


def make_cell(recipe: dict[str, Any] | None = None, **values: Any) -> Cell:
    settings: dict[str, Any] = {
        "recipe": make_recipe(**({"epochs": 8, "evaluations": 4, "lr": 0.02} | (recipe or {}))),
        "exemplars": make_dataset(12),
        "test": make_dataset(40, seed=5),
        "teacher": make_teacher(),
        "method": "random",
        "dataset": "toy",
        "data": "made up",
        "model": "mlp:hidden=8",
        "preset": "gift",
    }
    return Cell(**(settings | values))


def make_hard_cell(**values: Any) -> Cell:
    recipe = {"labels": "hard", "loss": "ce"} | values.pop("recipe", {})
    return make_cell(recipe, teacher=None, **values)


def make_stream(digest: str = "s") -> Stream:
    def epoch(number: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        dataset = make_dataset(12, seed=number)
        images = NORMALIZATION.apply(dataset.images.float() / 255)
        return [(images, F.one_hot(dataset.labels, 3).float(), dataset.labels)]

    return Stream(epoch=epoch, nbytes=777, digest=digest)


def make_whitened() -> tuple[DistilledDataset, ZCA]:
    """Exemplars in a whitened space, and the whitening of the real images."""
    zca = fit_zca(make_dataset(200, seed=9).images)
    dataset = make_dataset(12)
    encoded = replace(
        dataset.encoded,
        codec="float32",
        payload=zca.apply(dataset.images).contiguous().view(-1).view(torch.uint8),
    )
    return replace(dataset, encoded=encoded, space="zca"), zca


def test_a_row_has_all_keys_and_can_be_written_as_json() -> None:
    row = run_cell(make_cell())
    assert row.keys() == KEYS
    assert json.loads(json.dumps(row)) == row


def test_a_row_says_what_was_done() -> None:
    row = run_cell(make_cell({"seed": 3, "mix": "cutmix"}, tar_model="conv3:width=4"))
    expected = {
        "method": "random",
        "dataset": "toy",
        "data": "made up",
        "ipc": 4,
        "num_images": 12,
        "model": "mlp:hidden=8",
        "tar_model": "conv3:width=4",
        "preset": "gift",
        "loss": "gift",
        "labels": "online",
        "optimizer": "AdamW",
        "lr": 0.02,
        "epochs": 8,
        "batch_size": 4,
        "mix": "cutmix",
        "seed": 3,
        "status": "done",
        "reason": None,
        "evaluated_on": "test",
        "device": "cpu",
        "microbatches": 1,
    }
    assert expected.items() <= row.items()
    assert row["settings"] == make_cell({"seed": 3, "mix": "cutmix"}).recipe.as_dict()


def test_the_student_of_a_row_is_its_model_unless_another_is_named() -> None:
    assert run_cell(make_cell())["tar_model"] == "mlp:hidden=8"


def test_last_and_best_accuracy_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    top1 = iter([0.5, 0.75, 0.75, 0.25])

    def fake(*arguments: Any, **options: Any) -> Any:
        return replace(measure(*arguments, **options), top1=next(top1))

    monkeypatch.setattr(cell_module, "measure", fake)
    row = run_cell(make_hard_cell())
    assert row["curve"] == [[2, 0.5], [4, 0.75], [6, 0.75], [8, 0.25]]
    assert (row["accuracy_last"], row["accuracy_best"], row["best_epoch"]) == (0.25, 0.75, 4)
    assert row["top5_last"] == 1.0


def test_accuracies_are_those_of_the_trained_student_on_the_test_images() -> None:
    row = run_cell(make_cell())
    assert row["accuracy_last"] == row["curve"][-1][1] > 0.9
    again = run_cell(make_cell())
    assert row["curve"] == again["curve"]
    assert row["train_loss_last"] == again["train_loss_last"]


def test_validation_images_are_measured_once_at_the_end() -> None:
    row = run_cell(make_cell(validation=make_dataset(30, seed=6)))
    assert row["validation_accuracy"] > 0.9
    assert run_cell(make_cell())["validation_accuracy"] is None


def test_a_row_says_if_it_was_measured_on_validation_images() -> None:
    assert run_cell(make_cell(evaluated_on="validation"))["evaluated_on"] == "validation"


def test_the_accuracy_of_the_teacher_is_measured_once_for_the_same_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def counted(model: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(type(model).__name__)
        return measure(model, *arguments, **options)

    monkeypatch.setattr(cell_module, "measure", counted)
    teacher = Teacher(make_teacher().model, classes=range(3), normalization=make_teacher().normalization)
    test = make_dataset(40, seed=5)
    rows = [run_cell(make_cell({"seed": seed}, teacher=teacher, test=test)) for seed in (0, 1)]
    assert [row["teacher_accuracy"] for row in rows] == [1.0, 1.0]
    assert calls.count("Sequential") == 1
    assert run_cell(make_hard_cell())["teacher_accuracy"] is None


def test_a_training_that_diverges_ends_in_a_row_with_the_reason() -> None:
    row = run_cell(
        make_cell(
            {
                "optimizer": "SGD",
                "momentum": 0.0,
                "lr": 1e19,
                "loss": "mse",
                "batch_size": 12,
                "evaluations": 8,
            }
        )
    )
    assert row["status"] == "failed"
    assert "The loss was NaN or infinite in epoch 2" in row["reason"]
    assert [row[key] for key in ("accuracy_last", "accuracy_best", "top5_last", "best_epoch")] == [None] * 4
    assert row["train_loss_last"] is None
    assert len(row["curve"]) == 1
    assert row.keys() == KEYS
    assert json.loads(json.dumps(row)) == row


@pytest.mark.filterwarnings("ignore:A batch of")
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("can't allocate memory")]
)
def test_a_training_that_does_not_fit_the_memory_ends_in_a_row_with_the_reason(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    student = make_model()
    student.register_forward_pre_hook(lambda module, _: fail() if module.training else None)
    monkeypatch.setattr(cell_module, "fresh_student", lambda cell: student)
    row = run_cell(make_hard_cell())
    assert row["status"] == "failed"
    assert "A single image does not fit the memory" in row["reason"]


def test_other_errors_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes do not fit")

    student = make_model()
    student.register_forward_pre_hook(lambda module, _: fail() if module.training else None)
    monkeypatch.setattr(cell_module, "fresh_student", lambda cell: student)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run_cell(make_hard_cell())


def test_progress_is_told() -> None:
    calls: list[tuple[int, int]] = []
    run_cell(make_cell(), progress=lambda done, total: calls.append((done, total)))
    assert calls[-1] == (96, 96)


def test_students_follow_the_seed_and_leave_global_random_states() -> None:
    before = torch.random.get_rng_state()
    students = [fresh_student(make_cell({"seed": seed})) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), before)
    first, same, other = (list(s.state_dict().values()) for s in students)
    assert all(map(torch.equal, first, same))
    assert not torch.equal(first[0], other[0])


def test_images_that_are_not_square_are_refused() -> None:
    images, labels = torch.zeros(3, 1, 8, 9, dtype=torch.uint8), torch.arange(3)
    dataset = DistilledDataset.from_images(images, labels, num_classes=3)
    with pytest.raises(ValueError, match="square images, got 8 x 9 pixels"):
        fresh_student(make_hard_cell(exemplars=dataset, test=dataset))


def test_bytes_are_what_the_training_needs() -> None:
    exemplars = make_dataset(12, soft=True)
    soft_bytes = 12 * 3 * 2 + 3  # in half precision, and one byte a class for what is covered
    online = run_cell(make_cell(exemplars=exemplars))["bytes"]
    stored = run_cell(make_cell({"labels": "stored"}, exemplars=exemplars, teacher=None))["bytes"]
    hard = run_cell(make_hard_cell(exemplars=exemplars))["bytes"]
    stream = run_cell(
        make_cell({"labels": "stream"}, exemplars=exemplars, teacher=None, stream=make_stream())
    )
    assert hard == {"pixels": 768, "labels": 12, "soft_labels": 0, "teacher": 0, "total": 780}
    assert online == hard | {"teacher": 3 * 64 * 4, "total": 780 + 768}
    assert stored == hard | {"soft_labels": soft_bytes, "total": 780 + soft_bytes}
    assert stream["bytes"] == hard | {"soft_labels": 777, "total": 780 + 777}
    assert stream["batch_size"] is None


def test_costs_are_those_counted_by_hand() -> None:
    row = run_cell(make_cell())
    assert row["flops_per_image"] == {"student": 2 * (64 * 8 + 8 * 3), "teacher": 2 * 64 * 3}
    assert row["num_parameters"] == 64 * 8 + 8 + 8 * 3 + 3
    assert run_cell(make_hard_cell())["flops_per_image"]["teacher"] is None


def test_whitened_exemplars_are_tested_on_whitened_images() -> None:
    exemplars, zca = make_whitened()
    recipe = {"normalization": "none", "epochs": 40}
    row = run_cell(make_hard_cell(recipe=recipe, exemplars=exemplars, whitening=zca))
    assert row["accuracy_last"] > 0.9
    test = make_dataset(40, seed=5)
    student = fresh_student(make_cell())
    seen: list[Tensor] = []
    student.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    measure(student, test.images, test.labels, preprocess=zca.apply)
    torch.testing.assert_close(seen[0], zca.apply(test.images))


def test_whitening_and_whitened_exemplars_go_together() -> None:
    exemplars, zca = make_whitened()
    with pytest.raises(ValueError, match="the exemplars are `zca`. Fit one to the training images"):
        make_hard_cell(exemplars=exemplars)
    with pytest.raises(ValueError, match="the exemplars are `pixels`"):
        make_hard_cell(whitening=zca)


@pytest.mark.parametrize("name", ["test", "validation"])
def test_real_images_of_other_classes_or_shapes_are_refused(name: str) -> None:
    images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4)
    classes = DistilledDataset.from_images(images, labels, num_classes=4)
    with pytest.raises(
        ClassCountError, match=f"exemplars and the {name} images to have as many classes, got 3 and 4"
    ):
        make_cell(**{name: classes})  # type: ignore[arg-type]
    shapes = DistilledDataset.from_images(images[:3, :, :4], labels[:3], num_classes=3)
    with pytest.raises(
        ValueError, match=rf"Expected {name} images of the shape of the exemplars \(1, 8, 8\), got"
    ):
        make_cell(**{name: shapes})  # type: ignore[arg-type]


def test_the_id_is_the_same_for_the_same_cell_and_for_what_changes_no_result() -> None:
    same = {
        make_cell().cell_id,
        make_cell().cell_id,
        make_cell(data="elsewhere").cell_id,
        make_cell(preset="another").cell_id,
        make_cell(device="meta").cell_id,
        make_cell(tar_model="mlp:hidden=8").cell_id,
    }
    assert len(same) == 1


def test_the_id_tells_all_cells_apart_that_differ_in_anything_else() -> None:
    teacher = make_teacher()
    _, zca = make_whitened()
    exemplars, other_zca = (
        make_whitened()[0],
        ZCA(zca.mean, zca.matrix, 0.2, zca.image_shape, zca.source_sha256),
    )
    whitened = {"exemplars": exemplars, "recipe": {"normalization": "none"}}
    stream: dict[str, Any] = {"teacher": None, "recipe": {"labels": "stream"}}
    cells = [
        make_cell(),
        make_cell({"seed": 1}),
        make_cell({"lr": 0.03}),
        make_cell({"loss": "gift:weight=0.2"}),
        make_cell(exemplars=make_dataset(12, seed=1)),
        make_cell(exemplars=make_dataset(12, soft=True)),
        make_cell(test=make_dataset(40, seed=6)),
        make_cell(validation=make_dataset(40, seed=6)),
        make_cell(evaluated_on="validation"),
        make_cell(method="herding"),
        make_cell(dataset="other"),
        make_cell(model="mlp:hidden=9"),
        make_cell(tar_model="mlp:hidden=9"),
        make_cell(teacher=Teacher(teacher.model, classes=range(3))),
        make_cell(teacher=Teacher(make_model(), classes=range(3), normalization=teacher.normalization)),
        make_cell(**stream, stream=make_stream("a")),
        make_cell(**stream, stream=make_stream("b")),
        make_hard_cell(**whitened, whitening=zca),
        make_hard_cell(**whitened, whitening=other_zca),
    ]
    ids = [cell.cell_id for cell in cells]
    assert len(set(ids)) == len(ids)
    assert all(len(cell_id) == 16 for cell_id in ids)


def test_digests_are_of_contents_not_of_objects() -> None:
    assert dataset_digest(make_dataset()) == dataset_digest(make_dataset())
    teacher = make_teacher()
    copied = Teacher(teacher.model, classes=range(3), normalization=teacher.normalization)
    assert teacher_digest(teacher) == teacher_digest(copied)
    assert teacher_digest(teacher) != dataset_digest(make_dataset())


def test_a_changed_label_or_pixel_changes_the_digest() -> None:
    dataset = make_dataset()
    relabelled = replace(dataset, labels=dataset.labels.roll(1))
    encoded = dataset.encoded
    payload = encoded.payload.clone()
    payload[5] ^= 1
    repainted = replace(dataset, encoded=replace(encoded, payload=payload))
    assert len({dataset_digest(d) for d in (dataset, relabelled, repainted)}) == 3


def test_surroundings_are_named() -> None:
    assert versions()["torch"] == torch.__version__.partition("+")[0]
    assert {"python", "torchvision", "numpy", "gift-cl"} <= versions().keys()
    assert commit() == "unknown" or len(commit().rstrip("+")) == 12
    assert hardware(torch.device("cpu")).endswith("1 threads")


@pytest.mark.parametrize(("later", "expected"), [(350, 250), (100, None)])
def test_the_growth_of_memory_is_told_where_there_is_one(
    later: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([100, later])
    monkeypatch.setattr(surroundings, "_largest_size", lambda: next(sizes))
    assert PeakMemory(torch.device("cpu")).nbytes == expected


def test_the_size_of_the_process_is_in_bytes() -> None:
    assert 50e6 < surroundings._largest_size() < 100e9
