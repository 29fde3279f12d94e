"""GDKVM: videos segmented frame by frame with a memory of what came before.

Source: Wang, Sun, Guo, Wu and Qin, "GDKVM: Echocardiography Video Segmentation via Spatiotemporal
Key-Value Memory with Gated Delta Rule", ICCV 2025, arXiv:2512.10252: AdamW, 3000 steps, gradients
no longer than 3.
"""

from __future__ import annotations

from dataclasses import replace

from nnunetlike.networks.gdkvm import GDKVMSpec
from nnunetlike.training.objectives.video import VideoSegmentation
from nnunetlike.training.optimizers import StepAdamW
from nnunetlike.training.recipe import TrainerRecipe
from nnunetlike.training.recipes import TRAINERS

SMALL_RATE = 2e-3

GDKVM = TrainerRecipe(
    name="GDKVMTrainer",
    network=GDKVMSpec(),
    objective=VideoSegmentation(),
    optimizer=StepAdamW(lr=1e-4),
    rate_of_small_network=SMALL_RATE,
    epochs=60,
    iterations=50,
    val_iterations=10,
    save_every=5,
    source="clips",
    restarts_when_lost=False,
)
"""The network that the plan asks for: `base` is the paper's, `small` for small frames and CPUs."""

GDKVM_SMALL = replace(GDKVM, name="GDKVMTrainer_small", network=GDKVMSpec(size="small"))

FRAMEWISE = replace(GDKVM, name="GDKVMTrainer_framewise", network=GDKVMSpec(memory=False))
"""The same network without memory: every frame on its own. What it lacks is what memory gives."""

FRAMEWISE_SMALL = replace(
    GDKVM, name="GDKVMTrainer_framewise_small", network=GDKVMSpec(memory=False, size="small")
)

for recipe in (GDKVM, GDKVM_SMALL, FRAMEWISE, FRAMEWISE_SMALL):
    TRAINERS.add(recipe.name, recipe)
