from typing import Any

import pytest

from gift_cl.evaluation.presets import PRESETS, Case, build_recipe
from gift_cl.evaluation.recipe import Recipe


def make_case(method: str = "rded", dataset: str = "cifar100", model: str = "conv3", **values: Any) -> Case:
    settings = {"ipc": 10, "num_images": 1000} | values
    return Case(method=method, dataset=dataset, model=model, **settings)


def build(preset: str, dataset: str, *, model: str = "resnet18", **values: Any) -> Recipe:
    return build_recipe(preset, make_case(preset, dataset, model, **values))


def settings(recipe: Recipe, *names: str) -> tuple[Any, ...]:
    return tuple(getattr(recipe, name) for name in names)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "tinyimagenet", "imagenet-1k", "imagenet-woof"])
@pytest.mark.parametrize("factor", [1, 2])
def test_every_preset_makes_a_recipe_for_every_data_set(preset: str, dataset: str, factor: int) -> None:
    recipe = build(preset, dataset, factor=factor, learned_lr=0.02)
    assert recipe.evaluation_epochs()[-1] == recipe.epochs


def test_gift_has_one_recipe_for_all() -> None:
    recipe = build("gift", "cifar100")
    assert recipe == Recipe(
        epochs=1000,
        batch_size="auto",
        optimizer="AdamW",
        lr=1e-3,
        weight_decay=1e-4,
        decay_all=True,
        schedule="multistep",
        view="dsa",
        mix="none",
        loss="gift",
        labels="online",
        normalization="cifar",
        evaluations=4,
    )
    assert build("gift", "tinyimagenet") == recipe.override(normalization="imagenet")
    assert build("gift", "imagenet-1k") == recipe.override(normalization="imagenet", epochs=300)


@pytest.mark.parametrize(
    ("method", "dataset", "model", "view"),
    [
        ("rded", "imagenet-1k", "resnet18", "factor_crop:2 | dsa"),
        ("sre2l", "imagenet-1k", "resnet18", "dsa"),
        ("rded", "imagenet-woof", "resnet18", "dsa"),
        ("rded", "imagenet-1k", "conv4", "dsa"),
    ],
)
def test_gift_crops_cells_for_rded_on_imagenet_with_resnet18_alone(
    method: str, dataset: str, model: str, view: str
) -> None:
    assert build_recipe("gift", make_case(method, dataset, model, factor=2)).view == view


@pytest.mark.parametrize(
    ("student", "lr"), [("swin_v2_t", 1e-4), ("vit_b_16", 1e-4), ("resnet50", 1e-3), (None, 1e-3)]
)
def test_gift_trains_transformers_with_a_tenth_of_the_rate(student: str | None, lr: float) -> None:
    assert build_recipe("gift", make_case(tar_model=student)).lr == lr


def test_gift_takes_datms_stored_labels_and_does_not_normalise_whitened_images() -> None:
    recipe = build_recipe("gift", make_case("datm", "cifar10", whitened=True))
    assert settings(recipe, "labels", "normalization") == ("stored", "none")


def test_sre2l_on_imagenet() -> None:
    names = "epochs", "batch_size", "optimizer", "lr", "weight_decay", "decay_all", "schedule", "loss"
    expected = (300, 1024, "AdamW", 1e-3, 0.01, False, "cosine", "kl:temperature=20")
    recipe = build("sre2l", "imagenet-1k")
    assert settings(recipe, *names) == expected
    assert settings(recipe, "view", "mix") == ("rrc:min_scale=0.08 | flip", "cutmix:alpha=1.0")
    assert settings(recipe, "normalization", "evaluations") == ("imagenet", 30)


def test_sre2l_on_tiny_imagenet() -> None:
    names = "epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "decay_all", "mix"
    recipe = build("sre2l", "tinyimagenet")
    assert settings(recipe, *names) == (100, 256, "SGD", 0.2, 0.9, 1e-4, True, "none")
    assert settings(recipe, "schedule", "loss", "normalization") == (
        "warmup:epochs=5,start=0.01 | cosine",
        "kl:temperature=20,t2=true",
        "tiny",
    )


def test_sre2l_on_cifar_100() -> None:
    names = "epochs", "batch_size", "optimizer", "lr", "weight_decay", "decay_all", "loss", "mix", "view"
    expected = (
        400,
        128,
        "AdamW",
        1e-3,
        0.01,
        True,
        "kl:temperature=30",
        "mixup:alpha=0.8",
        "crop_flip:pad=4",
    )
    recipe = build("sre2l", "cifar100")
    assert settings(recipe, *names) == expected
    assert settings(recipe, "normalization", "evaluations") == ("cifar", 1)


@pytest.mark.parametrize("dataset", ["imagenet-1k", "tinyimagenet"])
def test_cda_follows_sre2l(dataset: str) -> None:
    assert build("cda", dataset) == build("sre2l", dataset)


def test_rded_on_mosaics() -> None:
    names = (
        "epochs",
        "optimizer",
        "lr",
        "weight_decay",
        "decay_all",
        "schedule",
        "loss",
        "mix",
        "normalization",
    )
    expected = (
        300,
        "AdamW",
        1e-3,
        0.01,
        False,
        "half_cosine",
        "kl:temperature=20",
        "cutmix:alpha=1.0",
        "imagenet",
    )
    recipe = build("rded", "imagenet-1k", factor=2)
    assert settings(recipe, *names) == expected
    assert recipe.view == "shuffle_patches:2 | rrc:min_scale=0.5 | flip"


def test_rded_on_whole_images_only_flips() -> None:
    assert settings(build("rded", "cifar10"), "view", "normalization") == ("flip", "imagenet")


@pytest.mark.parametrize(
    ("dataset", "ipc", "num_classes", "expected"),
    [
        ("cifar10", 1, 10, 10),
        ("cifar10", 10, 10, 50),
        ("cifar10", 50, 10, 100),
        ("imagenet-100", 1, 100, 20),
        ("imagenet-100", 10, 100, 100),
        ("imagenet-1k", 50, 1000, 200),
        ("tinyimagenet", 1, 200, 100),
        ("tinyimagenet", 50, 200, 100),
    ],
)
def test_batches_of_rded_grow_with_the_images_a_class(
    dataset: str, ipc: int, num_classes: int, expected: int
) -> None:
    assert build("rded", dataset, ipc=ipc, num_images=ipc * num_classes).batch_size == expected


def test_rded_makes_an_exception_of_conv3_on_cifar_100() -> None:
    assert settings(build("rded", "cifar100", model="conv3"), "batch_size", "lr") == (25, 2e-3)
    other = build("rded", "cifar100", model="conv3", tar_model="resnet18_modified")
    assert settings(other, "batch_size", "lr") == (100, 1e-3)


@pytest.mark.parametrize(
    ("student", "lr"),
    [
        ("vgg11", 5e-4),
        ("efficientnet_b0", 2e-3),
        ("mobilenet_v2", 2.5e-3),
        ("alexnet", 1e-4),
        ("conv6", 1e-3),
    ],
)
def test_rded_has_learning_rates_by_student(student: str, lr: float) -> None:
    assert build("rded", "imagenet-10", tar_model=student).lr == lr


def test_datm_takes_the_rate_that_was_learned_with_the_images() -> None:
    recipe = build("datm", "cifar10", learned_lr=0.017, whitened=True)
    names = "epochs", "batch_size", "optimizer", "lr", "momentum", "weight_decay", "decay_all", "evaluations"
    assert settings(recipe, *names) == (1000, 128, "SGD", 0.017, 0.9, 5e-4, True, 1)
    assert settings(recipe, "schedule", "view", "loss", "labels", "normalization") == (
        "step:at=0.5,factor=0.1",
        "dsa:form=one",
        "softce",
        "stored",
        "none",
    )


def test_datm_without_a_learned_rate_wants_one() -> None:
    with pytest.raises(ValueError, match="`learned_lr` for the preset `datm`.*Give `lr`"):
        build("datm", "cifar10")
    assert build_recipe("datm", make_case("datm", "cifar10"), lr=0.01).lr == 0.01


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ("imagenet-1k", (300, 1024, "AdamW", 1e-3, 0.01, "mse_ce:ce_weight=0.1", "imagenet", 30)),
        ("tinyimagenet", (100, 100, "SGD", 0.1, 5e-4, "mse_ce:ce_weight=0.1", "imagenet", 10)),
        ("cifar100", (1000, 64, "SGD", 0.1, 5e-4, "mse_ce:ce_weight=0.15", "cifar-gvbsm", 100)),
        ("cifar10", (1000, 100, "AdamW", 1e-3, 0.0, "mse_ce:ce_weight=0.15", "cifar-gvbsm", 100)),
    ],
)
def test_gvbsm_has_numbers_for_each_data_set(dataset: str, expected: tuple[Any, ...]) -> None:
    recipe = build("gvbsm", dataset)
    names = "epochs", "batch_size", "optimizer", "lr", "weight_decay", "loss", "normalization", "evaluations"
    assert settings(recipe, *names) == expected
    assert settings(recipe, "decay_all", "schedule", "hard_label", "mix") == (
        False,
        "cosine",
        "own",
        "cutmix:alpha=1.0",
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_data_that_no_paper_has_need_a_normalisation(preset: str) -> None:
    with pytest.raises(
        ValueError, match="No paper says how to normalise `digits`. Known: cifar10.*Give `norm"
    ):
        build_recipe(preset, make_case(dataset="digits", learned_lr=0.1))
    given = build_recipe(preset, make_case(dataset="digits", learned_lr=0.1), normalization="0.5/0.25")
    known = build_recipe(preset, make_case(dataset="digits", learned_lr=0.1, normalization="0.5/0.25"))
    assert given == known
    assert given.normalization == "0.5/0.25"


def test_any_value_of_a_preset_can_be_overridden() -> None:
    recipe = build_recipe("gift", make_case(), epochs=7, optimizer="SGD", normalization="imagenet", seed=3)
    assert settings(recipe, "epochs", "optimizer", "normalization", "seed") == (7, "SGD", "imagenet", 3)


def test_a_stream_brings_its_own_views_and_mixes() -> None:
    recipe = build_recipe("sre2l", make_case("sre2l", "imagenet-1k"), labels="stream")
    assert settings(recipe, "labels", "view", "mix", "epochs") == ("stream", "none", "none", 300)
    with pytest.raises(ValueError, match="`view` and `mix` none"):
        build_recipe("sre2l", make_case("sre2l", "imagenet-1k"), labels="stream", view="flip")


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="Unknown preset `mtt`. Known: gift, sre2l, cda, rded, datm, gvbsm"):
        build_recipe("mtt", make_case())


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="Unknown setting `epoch`"):
        build_recipe("gift", make_case(), epoch=3)


@pytest.mark.parametrize("name", ["ipc", "num_images", "factor"])
def test_a_case_without_images_is_refused(name: str) -> None:
    values: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match="`ipc`, `num_images` and `factor` of at least 1"):
        make_case(**values)
