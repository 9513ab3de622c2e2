from dataclasses import fields
from typing import Any

import pytest

from gift_cl.evaluation.config import CROSSED, EvaluationConfig, as_list
from gift_cl.evaluation.recipe import Recipe


def make_config(**more: Any) -> EvaluationConfig:
    needed: dict[str, Any] = {"method": "rded", "dataset": "digits", "model": "mlp", "ipc": 10}
    return EvaluationConfig(**needed | more)


def test_every_setting_of_a_recipe_can_be_given() -> None:
    names = {field.name for field in fields(EvaluationConfig)} | {"loss"}
    assert {field.name for field in fields(Recipe)} <= names
    assert "criterion_name" in names


def test_overrides_are_what_is_given_and_no_list() -> None:
    assert make_config().overrides == {}
    config = make_config(epochs=3, decay_all=False, view="dsa", lr=0.1, criterion_name="kl", optimizer="SGD")
    assert config.overrides == {"epochs": 3, "decay_all": False, "view": "dsa"}


def test_smoke_form_is_tiny_and_keeps_the_choices() -> None:
    config = make_config(
        epochs=300, seed=[3, 4], lr=[0.1, 0.2], device="cuda", tracking="online", compile=True
    )
    smoke = config.smoke()
    assert (smoke.epochs, smoke.evaluations, smoke.seed, smoke.lr) == (1, 1, 3, [0.1, 0.2])
    assert (smoke.device, smoke.tracking, smoke.compile, smoke.method) == ("cpu", "disabled", False, "rded")


def test_group_names_what_the_grid_is_about() -> None:
    assert make_config().group_name == "rded-digits-ipc10"
    assert make_config(group="mine").group_name == "mine"


def test_a_tenth_is_held_out_only_where_it_is_needed() -> None:
    assert make_config().held_out is None
    assert make_config(evaluate_on="validation").held_out == 0.1
    assert make_config(evaluate_on="validation", validation_share=0.2).held_out == 0.2
    assert make_config(validation_share=0.2).held_out == 0.2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ipc": 0}, "`ipc` as an integer of at least 1, got 0"),
        ({"ipc": 1.5}, "`ipc`"),
        ({"evaluate_on": "train"}, "`evaluate_on` test or validation, got 'train'"),
        ({"validation_share": 1.0}, r"`validation_share` in \(0, 1\), got 1\.0"),
        ({"seed": []}, "`seed` with at least one value"),
        ({"criterion_name": ["gift", "gift"]}, "different values in `criterion_name`, got 'gift' twice"),
    ],
)
def test_unusable_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_config(**values)


def test_all_crossed_settings_are_settings() -> None:
    assert set(CROSSED) <= {field.name for field in fields(EvaluationConfig)}
    assert as_list("mlp") == ["mlp"]
    assert as_list([1, 2]) == [1, 2]
