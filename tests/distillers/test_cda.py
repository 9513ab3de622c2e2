import re
from dataclasses import fields
from typing import Any

import pytest
import torch

from gift_cl.dataset import DistilledDataset
from gift_cl.distillers.batch_view import BatchView
from gift_cl.distillers.cda import CDA
from gift_cl.distillers.protocol import Distiller
from gift_cl.distillers.sre2l import SRe2L
from gift_cl.models import build_model
from gift_cl.registry import Registry
from gift_cl.teacher import Teacher

DISTILLERS: Registry[Distiller] = Registry("distiller")
DISTILLERS.add("cda", CDA, reference="CDA, 2023")


def distill(distiller: SRe2L) -> DistilledDataset:
    torch.manual_seed(0)
    model = build_model("conv3:width=8", in_channels=3, image_size=8, num_classes=3)
    return distiller.distill(
        torch.zeros(3, 3, 8, 8, dtype=torch.uint8),
        torch.arange(3),
        per_class=2,
        num_classes=3,
        teacher=Teacher(model, classes=range(3)),
        generator=torch.Generator().manual_seed(0),
    )


def test_without_a_curriculum_it_is_sre2l_with_crops() -> None:
    same = SRe2L(iterations=5, crop="rrc", flip=True)
    made = distill(CDA(iterations=5, curriculum="constant"))
    assert torch.equal(made.images, distill(same).images)
    assert not torch.equal(made.images, distill(CDA(iterations=5)).images)


def test_crops_follow_the_curriculum(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[float] = []
    draw = BatchView.draw

    def record(*args: Any, min_scale: float, **options: Any) -> BatchView:
        drawn.append(min_scale)
        return draw(*args, min_scale=min_scale, **options)

    monkeypatch.setattr(BatchView, "draw", record)
    distill(CDA(iterations=4, batch=3))
    pinned = [1.0, 0.8652691193458119, 0.54, 0.21473088065418814]
    assert drawn == pytest.approx(pinned * 2)  # two batches, each from the start
    drawn.clear()
    distill(CDA(iterations=4, curriculum="step", milestone=0.5, min_scale=0.3))
    assert drawn == [1.0, 1.0, 0.3, 0.3]


def test_a_spec_names_every_option_and_builds_the_distiller_again() -> None:
    assert CDA().spec == (
        "cda:iterations=1000,lr=0.25,bn_weight=0.01,first_bn=10,batch=100,min_scale=0.08,flip=true,jitter=4,"
        "tv=0,l2=0,curriculum=cosine,milestone=1"
    )
    chosen = DISTILLERS.create("cda:200,curriculum=linear,milestone=0.5")
    assert chosen == CDA(iterations=200, curriculum="linear", milestone=0.5)
    assert DISTILLERS.create(chosen.spec) == chosen
    assert distill(CDA(iterations=1)).provenance.method == CDA(iterations=1).spec


def test_published_settings_can_be_typed() -> None:
    specs = re.findall(r"``(cda:[^`]+)``", CDA.__doc__ or "")
    assert [DISTILLERS.create(spec) for spec in specs] == [
        CDA(iterations=4000, jitter=32),
        CDA(iterations=4000, lr=0.4, bn_weight=0.05),
        CDA(iterations=2000, lr=0.05, bn_weight=0.25, jitter=32),
    ]


def test_all_that_is_not_of_crops_has_the_defaults_of_sre2l() -> None:
    shared = {item.name for item in fields(SRe2L)} - {"crop", "flip"}
    assert all(getattr(CDA(), name) == getattr(SRe2L(), name) for name in shared)


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("cda:curriculum=sine", "`curriculum` to be one of constant, step, linear, cosine, got 'sine'"),
        ("cda:milestone=0", r"`milestone` in \(0, 1\], got 0"),
        ("cda:min_scale=2", r"`min_scale` in \(0, 1\], got 2"),
        ("cda:crop=none", "unexpected|Options of `cda`: iterations, lr"),
        ("cda:lr=0", r"`lr` in \(0, inf\), got 0"),
    ],
)
def test_unusable_options_are_refused(spec: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        DISTILLERS.create(spec)


def test_errors_speak_of_cda() -> None:
    with pytest.raises(ValueError, match="Use `cda:jitter=0`"):
        distill(CDA(jitter=9))
