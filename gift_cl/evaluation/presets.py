"""Recipes by name, and with other values where given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gift_cl.evaluation import published_recipes
from gift_cl.evaluation.case import Case
from gift_cl.evaluation.recipe import Recipe

__all__ = ["PRESETS", "Case", "Preset", "build_recipe"]

Preset = Callable[[Case], Recipe]


def build_recipe(preset: str, case: Case, **overrides: Any) -> Recipe:
    """The recipe of a preset for a case, with other values where given.

    Args:
        preset: One of `PRESETS`.
        case: Data set, student and so on.
        overrides: Settings of a `Recipe`. With ``labels="stream"``, which brings views and mixes along,
            ``view`` and ``mix`` become none unless they are given too.

    Raises:
        ValueError: If the preset or a setting is unknown, a value cannot be used, or the preset lacks a
            value for this case.

    Example:
        >>> case = Case(method="rded", dataset="cifar100", model="conv3", ipc=10, num_images=1000)
        >>> recipe = build_recipe("gift", case, loss="kl")
        >>> recipe.epochs, recipe.optimizer, recipe.lr, recipe.loss
        (1000, 'AdamW', 0.001, 'kl')
    """
    if preset not in PRESETS:
        raise ValueError(f"Unknown preset `{preset}`. Known: {', '.join(PRESETS)}.")
    case = replace(
        case,
        normalization=overrides.get("normalization", case.normalization),
        learned_lr=overrides.get("lr", case.learned_lr),
    )
    if overrides.get("labels") == "stream":
        overrides = {"view": "none", "mix": "none"} | overrides
    return PRESETS[preset](case).override(**overrides)


PRESETS: dict[str, Preset] = {
    "gift": published_recipes.gift,
    "sre2l": published_recipes.sre2l,
    "cda": published_recipes.cda,
    "rded": published_recipes.rded,
    "datm": published_recipes.datm,
    "gvbsm": published_recipes.gvbsm,
}
"""One for each paper: `gift_cl.evaluation.published_recipes` has the values and their sources."""
