"""UNet++ trainers."""

from __future__ import annotations

from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec
from nnunetlike.training.objectives.segmentation import DeepSupervision
from nnunetlike.training.optimizers import PolySGD
from nnunetlike.training.recipe import TrainerRecipe
from nnunetlike.training.recipes import TRAINERS

V2 = TrainerRecipe(
    name="nnUNetPlusPlusTrainerV2",
    network=UNetPlusPlusSpec(),
    objective=DeepSupervision(weights="all"),
    optimizer=PolySGD(lr=1e-2, momentum=0.99),
)

TRAINERS.add(V2.name, V2)
