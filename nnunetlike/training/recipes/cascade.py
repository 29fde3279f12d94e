"""Trainers of a cascade's full resolution, which sees what the low resolution has found.

Source: nnU-Net v1.
"""

from __future__ import annotations

from dataclasses import replace

from nnunetlike.training.recipes import TRAINERS, baseline, nnunet_plus_plus

UNET = replace(baseline.V2, name="nnUNetTrainerV2CascadeFullRes", previous_trainer=baseline.V2.name)
UNET_PLUS_PLUS = replace(
    nnunet_plus_plus.V2,
    name="nnUNetPlusPlusTrainerV2CascadeFullRes",
    previous_trainer=nnunet_plus_plus.V2.name,
)

TRAINERS.add(UNET.name, UNET)
TRAINERS.add(UNET_PLUS_PLUS.name, UNET_PLUS_PLUS)
