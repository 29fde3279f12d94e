"""What a trainer can be used for: its kind of data, and where it can be augmented."""

from __future__ import annotations

from nnunetlike.core import paths
from nnunetlike.core.errors import UsageError
from nnunetlike.training.recipe import TrainerRecipe
from nnunetlike.training.recipes import TRAINERS


def require_data_of_its_kind(recipe: TrainerRecipe, configuration: str) -> None:
    """Do nothing if the trainer is one of the configuration: of images, videos, or a cascade.

    Raises:
        UsageError: it is not.
    """
    is_cascade = configuration == paths.CASCADE
    if is_cascade and recipe.previous_trainer is None:
        raise UsageError(
            f"{recipe.name} does not take what {paths.LOW} has found; train {paths.CASCADE} "
            "with nnUNetTrainerV2CascadeFullRes or nnUNetPlusPlusTrainerV2CascadeFullRes"
        )
    if recipe.previous_trainer is not None and not is_cascade:
        raise UsageError(
            f"{recipe.name} is the second stage of a cascade; train {paths.CASCADE} with it"
        )
    for_videos = recipe.source == "clips"
    if for_videos == (configuration == paths.VIDEO):
        return
    others = ", ".join(
        n for n in TRAINERS.names() if (TRAINERS.get(n).source == "clips") != for_videos
    )
    raise UsageError(
        f"{recipe.name} is a trainer of {'videos' if for_videos else 'images'}, and "
        f"{configuration} has {'images' if for_videos else 'videos'}; "
        + (f"train {paths.VIDEO} with it, or use {others}" if for_videos else f"use {others}")
    )


def require_patches_alone(recipe: TrainerRecipe, augment_on: str) -> None:
    """Do nothing if the device can augment what the trainer learns from, or need not.

    Raises:
        UsageError: these are clips, or hold what the low resolution of a cascade has found.
    """
    if augment_on == "cpu":
        return
    if recipe.source == "clips":
        what = "clips of videos"
    elif recipe.previous_trainer is not None:
        what = "what the low resolution of a cascade has found"
    else:
        return
    raise UsageError(
        f"--augment_on device cannot augment {what}, on which {recipe.name} trains; leave it "
        "out, or give --augment_on cpu"
    )
