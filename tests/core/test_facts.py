import json
import math
from dataclasses import replace

import pytest
import torch

from gift_cl import facts
from gift_cl.codecs import build_codec
from gift_cl.dataset import DistilledDataset, Provenance
from gift_cl.facts import agreement, describe
from gift_cl.normalization import Normalization
from gift_cl.soft_labels import SoftLabels


def make(count: int = 6) -> DistilledDataset:
    generator = torch.Generator().manual_seed(0)
    return DistilledDataset.from_images(
        torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=generator),
        torch.tensor([0, 0, 0, 2, 2, 3])[:count],
        num_classes=5,
        codec="png",
        factor=2,
        normalization=Normalization((0.5,), (0.25,)),
        provenance=Provenance(method="rded:factor=2", hashes={"a.jpg": "00"}),
    )


def test_facts_say_what_the_data_set_says() -> None:
    said = describe(make())
    assert (said["method"], said["num_images"], said["num_classes"]) == ("rded:factor=2", 6, 5)
    assert said["images_per_class"] == {"min": 1, "max": 3}
    assert said["classes_without_images"] == [1, 4]
    assert said["image_shape"] == [3, 8, 8]
    assert (said["codec"], said["factor"], said["space"], said["learned_lr"]) == ("png", 2, "pixels", None)
    assert said["normalization"] == {"mean": [0.5], "std": [0.25]}
    assert said["provenance"]["hashes"] == {"a.jpg": "00"}
    assert said["soft_labels"] is None


def test_bytes_are_those_of_the_ledger() -> None:
    dataset = make()
    ledger = dataset.ledger()
    assert describe(dataset)["bytes"] == {**ledger.by_part(), "total": ledger.total}


def test_values_are_measured_as_torch_measures_them() -> None:
    dataset = make()
    values, pixels = describe(dataset)["values"], dataset.images.double() / 255
    assert (values["min"], values["max"]) == (float(pixels.min()), float(pixels.max()))
    assert values["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert values["std"] == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist(), abs=1e-6)
    assert (values["type"], values["num_measured"]) == ("uint8", 6)


def test_only_so_many_images_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "_MEASURED", 4)
    told: list[tuple[int, int]] = []
    values = describe(make(), progress=lambda *done: told.append(done))["values"]
    pixels = make().images[::2].double() / 255
    assert values["num_measured"] == 3
    assert values["mean"] == pytest.approx(pixels.mean((0, 2, 3)).tolist(), abs=1e-6)
    assert told[-1] == (3, 3)


def test_whitened_values_are_not_scaled() -> None:
    images = torch.tensor([-3.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4).contiguous()
    dataset = DistilledDataset(
        encoded=build_codec("float32").encode(images),
        labels=torch.tensor([0, 1]),
        num_classes=2,
        space="zca",
        learned_lr=0.01,
    )
    said = describe(dataset)
    assert (said["values"]["min"], said["values"]["max"]) == (-3.0, 1.0)
    assert said["values"]["mean"] == [-1.0] * 3
    assert said["values"]["std"] == [2.0] * 3
    assert (said["space"], said["learned_lr"]) == ("zca", 0.01)


def test_soft_labels_are_compared_with_the_hard_ones() -> None:
    dataset = make()
    logits = torch.zeros(6, 2, 5)
    logits[torch.arange(6), 0, dataset.labels] = 1.0
    logits[0, 0] = torch.tensor([0.0, 5.0, 0.0, 0.0, 0.0])
    covered = {0: (0, 1), 2: (0, 1, 2), 3: (0, 1, 2, 3)}
    soft = SoftLabels.from_logits(logits, dataset.labels, covered)
    said = describe(replace(dataset, soft_labels=soft))["soft_labels"]
    assert said == {
        "num_views": 2,
        "type": "float16",
        "classes_covered": {"min": 2, "max": 4},
        "agreement_with_labels": pytest.approx(5 / 6),
    }


def test_agreement_counts_rows_whose_highest_value_is_at_their_label() -> None:
    logits = torch.tensor([[1.0, 2.0, float("nan")], [5.0, 2.0, 0.0], [float("nan"), -1.0, -2.0]])
    assert agreement(logits, torch.tensor([1, 1, 1])) == pytest.approx(2 / 3)
    assert math.isnan(agreement(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)))


def test_facts_fit_into_json() -> None:
    said = describe(replace(make(), class_names=tuple("abcde")))
    assert json.loads(json.dumps(said)) == said


def test_an_empty_data_set_has_facts_too() -> None:
    said = describe(make(0))
    assert said["num_images"] == 0
    assert said["images_per_class"] == {"min": 0, "max": 0}
    assert said["values"] == {"type": "none", "num_measured": 0}
