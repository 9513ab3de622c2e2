from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser

from experiments.compare_settings import CompareConfig, make_jobs
from experiments.config import Config
from experiments.data import DataChoice
from experiments.stream_settings import StreamsConfig, from_values, make_runs
from gift_cl.codecs import build_codec
from gift_cl.distillers import DISTILLERS
from gift_cl.labels import LABELS
from gift_cl.losses import build_loss
from gift_cl.models import MODELS, build_model
from gift_cl.real_data import PUBLISHED

FOLDER = Path(__file__).parents[2] / "experiments" / "configs"
COMPARISONS = sorted(FOLDER.rglob("compare_*.yaml"))
STREAMS = sorted(FOLDER.rglob("streams_*.yaml"))
FILES = sorted(set(FOLDER.rglob("*.yaml")) - set(COMPARISONS) - set(STREAMS))


def read(file: Path, kind: type[Any], make: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    parser = ArgumentParser()
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(kind)
    values = parser.parse_args(["--config", str(file)]).as_dict()
    values.pop("config")
    return kind(**values) if make is None else make(values)


def image_shape(config: DataChoice) -> tuple[int, int, int]:
    card = PUBLISHED[config.data]
    assert card.native_size is not None
    return 1 if card.mode == "L" else 3, card.native_size, card.native_size


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_configuration_file_can_be_read(file: Path) -> None:
    config = read(file, Config)
    for registry, spec in ((DISTILLERS, config.exemplars), (LABELS, config.labels), (MODELS, config.model)):
        registry.create(spec)
    build_codec(config.codec)
    build_loss(config.loss)


def test_there_are_configuration_files() -> None:
    assert {file.stem for file in FILES} >= {"digits", "cifar100"}
    assert {file.stem for file in COMPARISONS} >= {"compare_digits", "compare_cifar10classes"}
    assert {file.stem for file in STREAMS} >= {"streams_digits"}


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: file.stem)
def test_every_comparison_has_jobs_that_fit_its_images(file: Path) -> None:
    config = read(file, CompareConfig)
    for whole in (config, config.smoke()):
        shape = image_shape(whole)
        num_classes = whole.classes or PUBLISHED[whole.data].num_classes
        assert make_jobs(whole, num_classes=num_classes, image_shape=shape)
        channels, size, _ = shape
        build_model(whole.model, in_channels=channels, image_size=size, num_classes=num_classes)


@pytest.mark.parametrize("file", STREAMS, ids=lambda file: file.stem)
def test_every_comparison_of_streams_has_runs_whose_parts_exist(file: Path) -> None:
    comparison = read(file, StreamsConfig, from_values)
    stream = comparison.stream
    num_classes = stream.classes or PUBLISHED[stream.data].num_classes
    assert num_classes % stream.experiences == 0
    runs = make_runs(comparison, num_classes=num_classes, image_shape=image_shape(stream))
    assert any(run.memory.is_real for run in runs)
    for run in runs:
        LABELS.create(run.config.labels)
        build_loss(run.config.loss)
    channels, size, _ = image_shape(stream)
    build_model(stream.model, in_channels=channels, image_size=size, num_classes=num_classes)


def test_the_smoke_form_is_small_and_keeps_the_choices() -> None:
    config = Config(strategy="der", epochs=50, device="cuda", tracking="online")
    smoke = config.smoke()
    assert (smoke.epochs, smoke.device, smoke.tracking, smoke.strategy) == (1, "cpu", "disabled", "der")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "`epochs`"),
        ({"lr": 0.0}, "`lr`"),
        ({"validation_share": 1.0}, "`validation_share`"),
        ({"strategy": "der", "budget_bytes": None, "per_class": 5}, "`budget_bytes` for the strategy der"),
        ({"budget_bytes": None}, "either"),
    ],
)
def test_unusable_values_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**values)  # type: ignore[arg-type]
