"""Trainers by the names users type: each is a recipe, a value."""

from __future__ import annotations

from nnunetlike.core.registry import Registry
from nnunetlike.training.recipe import TrainerRecipe

TRAINERS: Registry[TrainerRecipe] = Registry("trainer", "nnunetlike.training.recipes")
