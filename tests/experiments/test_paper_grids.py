from pathlib import Path

import pytest

from gift_cl.cli.evaluate import parse
from gift_cl.evaluation.case import Case
from gift_cl.evaluation.grid import expand
from gift_cl.evaluation.presets import build_recipe
from gift_cl.models import find_architecture
from gift_cl.real_data import PUBLISHED

FILES = sorted((Path(__file__).parents[2] / "experiments" / "paper").rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_cell_of_a_grid_has_a_recipe_and_a_student(file: Path) -> None:
    config = parse(["--config", str(file)])
    num_classes = PUBLISHED[config.dataset].num_classes
    for point in expand(config):
        case = Case(
            method=config.method,
            dataset=config.dataset,
            model=point.model,
            tar_model=point.tar_model,
            ipc=config.ipc,
            num_images=config.ipc * num_classes,
            whitened=config.method == "datm",
        )
        build_recipe(config.preset, case, **config.overrides | point.overrides())
        find_architecture(point.tar_model or point.model)


def test_grids_have_outputs_of_their_own() -> None:
    outputs = [parse(["--config", str(file)]).out for file in FILES]
    assert len(set(outputs)) == len(outputs)


def test_each_method_is_trained_with_its_own_loss_and_with_gift() -> None:
    own = {"rded": "kl", "sre2l": "kl", "cda": "kl", "gvbsm": "mse_ce", "datm": "softce"}
    for method, loss in own.items():
        (config,) = (parse(["--config", str(file)]) for file in FILES if file.stem == f"cifar100_{method}")
        names = {str(point.criterion_name).partition(":")[0] for point in expand(config)}
        assert {"gift", loss, "mse"} <= names


def test_scaled_and_unscaled_divergences_are_compared() -> None:
    for file in FILES:
        specs = {point.criterion_name for point in expand(parse(["--config", str(file)]))}
        if "kl:temperature=20" in specs:
            assert "kl:temperature=20,t2=true" in specs, file
