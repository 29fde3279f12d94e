"""Trainers of nnU-Net v1 and of the public UNet++ port that train in several processes.

Any trainer does; these are the names that users' commands have. Their recipes are those of one
process, so that a fold trained by one and by many are comparable.
"""

from __future__ import annotations

from dataclasses import replace

from nnunetlike.training.recipes import TRAINERS, baseline, nnunet_plus_plus

UNET = replace(baseline.V2, name="nnUNetTrainerV2_DDP")
UNET_PLUS_PLUS = replace(nnunet_plus_plus.V2, name="nnUNetPlusPlusTrainerV2_hypDDP")

TRAINERS.add(UNET.name, UNET)
TRAINERS.add(UNET_PLUS_PLUS.name, UNET_PLUS_PLUS)
