import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gift_cl.evaluation.recipe import Recipe


def make_recipe(**values: Any) -> Recipe:
    return Recipe(**{"epochs": 12, "normalization": "cifar", **values})


@pytest.mark.parametrize(
    ("num_images", "expected"),
    [(1, 1), (10, 10), (11, 11), (51, 50), (500, 50), (501, 100), (20_000, 100), (20_001, 200)],
)
def test_an_automatic_batch_size_follows_the_rule_of_gift(num_images: int, expected: int) -> None:
    assert make_recipe(batch_size="auto").batch_size_for(num_images) == expected


def test_a_batch_is_no_larger_than_the_data_set() -> None:
    assert make_recipe(batch_size=64).batch_size_for(40) == 40
    assert make_recipe(batch_size=64).batch_size_for(65) == 64


def test_a_student_is_measured_at_every_quarter_as_gift_does() -> None:
    assert make_recipe(epochs=1000).evaluation_epochs() == [250, 500, 750, 1000]
    assert make_recipe(epochs=300).evaluation_epochs() == [75, 150, 225, 300]


@given(epochs=st.integers(1, 400), evaluations=st.integers(1, 500))
def test_measurements_end_with_the_training_and_come_at_most_once_an_epoch(
    epochs: int, evaluations: int
) -> None:
    measured = make_recipe(epochs=epochs, evaluations=evaluations).evaluation_epochs()
    assert measured[-1] == epochs
    assert measured[0] >= 1
    assert len(set(measured)) == len(measured) == min(epochs, evaluations)
    gaps = [after - before for before, after in zip([0, *measured], measured, strict=False)]
    assert max(gaps) - min(gaps) <= 1


def test_other_values_leave_the_rest_as_it_was() -> None:
    recipe = make_recipe(seed=3)
    other = recipe.override(lr=0.5, loss="kl:temperature=4")
    assert other == dataclasses.replace(recipe, lr=0.5, loss="kl:temperature=4")
    assert recipe.lr == 1e-3


def test_an_unknown_setting_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="Unknown setting `learning_rate` of a recipe. Known: epochs, norm"):
        make_recipe().override(learning_rate=0.1)


def test_a_value_that_is_overridden_is_checked() -> None:
    with pytest.raises(ValueError, match="`epochs` as an integer of at least 1, got 0"):
        make_recipe().override(epochs=0)


def test_a_recipe_survives_json() -> None:
    recipe = make_recipe(batch_size=7, view="factor_crop:2 | dsa", precision="bfloat16")
    assert Recipe(**json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_recipe().lr = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("loss", ["ce", "gift", "cosine", "gift_ce"])
def test_losses_that_accept_hard_labels_may_go_without_soft_ones(loss: str) -> None:
    assert make_recipe(labels="hard", loss=loss).labels == "hard"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 1.5}, "`epochs` as an integer of at least 1, got 1.5"),
        ({"epochs": True}, "`epochs` as an integer of at least 1, got True"),
        ({"batch_size": 0}, "`batch_size` as an integer of at least 1, got 0. Or write auto"),
        ({"batch_size": "big"}, "`batch_size` as an integer of at least 1, got 'big'. Or write auto"),
        ({"evaluations": 0}, "`evaluations` as an integer of at least 1, got 0"),
        ({"seed": -1}, "`seed` as an integer of at least 0, got -1"),
        ({"lr": -0.1}, r"`lr` in \[0, inf\), got -0.1"),
        ({"lr": float("nan")}, r"`lr` in \[0, inf\), got nan"),
        ({"lr": float("inf")}, r"`lr` in \[0, inf\), got inf"),
        ({"lr": "fast"}, r"`lr` in \[0, inf\), got 'fast'"),
        ({"weight_decay": -1}, r"`weight_decay` in \[0, inf\), got -1"),
        ({"momentum": 1.0}, r"`momentum` in \[0, 1\), got 1.0"),
        ({"decay_all": 1}, "`decay_all` to be true or false, got 1"),
        ({"compile": "yes"}, "`compile` to be true or false, got 'yes'"),
        ({"labels": "soft"}, "`labels` to be one of online, stored, stream, hard, got 'soft'"),
        ({"precision": "float16"}, "`precision` to be one of float32, bfloat16, got 'float16'"),
        ({"hard_label": "partner"}, "`hard_label` to be one of mixed, own, got 'partner'"),
        ({"optimizer": "Lion"}, "Unknown optimizer `Lion`. Known: ASGD, .*AdamW"),
        ({"schedule": "linear"}, "Unknown schedule `linear`"),
        ({"view": "blur"}, "Unknown view `blur`"),
        ({"mix": "blend"}, "Unknown mix `blend`"),
        ({"loss": "hinge"}, "Unknown loss `hinge`"),
        ({"normalization": "mnist"}, "Unknown normalisation `mnist`"),
        ({"labels": "hard", "loss": "kl"}, "without soft labels for `labels` hard, got `kl`"),
        ({"labels": "stream"}, "`view` and `mix` none for `labels` stream, got `dsa` and `none`"),
        ({"labels": "stream", "view": "none", "mix": "mixup"}, "got `none` and `mixup`"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_recipe(**values)
