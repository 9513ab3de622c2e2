"""What `gift-cl teacher` says: before a training, and of what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gift_cl.evaluation.recipe import Recipe
from gift_cl.normalization import Normalization
from gift_cl.real_data import RealData


def announce(model: str, data: RealData, recipe: Recipe, device: str, normalization: str) -> str:
    """What is about to be trained."""
    channels, height, width = data.image_shape
    return (
        f"{model} on {device}: {len(data.train):,} images of {data.name}, {channels} x {height} x {width}, "
        f"{data.num_classes} classes\n"
        f"recipe: {recipe.epochs} epochs in batches of {recipe.batch_size_for(len(data.train))}, "
        f"{recipe.optimizer} {recipe.lr:g}, weight decay {recipe.weight_decay:g}, {recipe.schedule}, "
        f"{recipe.view}, seed {recipe.seed}\n"
        f"normalization: {normalization}"
    )


def words(facts: Mapping[str, Any]) -> str:
    """What a training came to; the test accuracy comes last."""
    lines = [
        f"{facts['path']}  {facts['bytes']:,} bytes  sha256 {facts['sha256']}",
        f"trained for {facts['seconds']:.1f} s, {facts['images_per_second']:,.0f} images/s",
    ]
    if facts["validation"]:
        lines.append(f"validation accuracy: {shares(facts['validation'])} held-out images")
    published = f"; published: {facts['published']:.2%}" if facts["published"] else ""
    lines.append(f"test accuracy: {shares(facts['test'])} images{published}")
    return "\n".join(lines)


def shares(measured: Mapping[str, Any]) -> str:
    """Accuracies, and of how many images."""
    return f"{measured['top1']:.2%} (top-5 {measured['top5']:.2%}) of {measured['n']:,}"


def describe(normalization: Normalization) -> str:
    """Means and deviations."""
    mean, std = (", ".join(f"{v:.4f}" for v in part) for part in (normalization.mean, normalization.std))
    return f"mean {mean}, deviation {std}"
