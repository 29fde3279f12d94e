"""Results folders as nnU-Net v2 leaves them, made by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunetlike.core.serialization import save_json

NAME = "nnUNetTrainer__nnUNetPlans__3d_fullres"
FEATURES = [4, 8]


def architecture(dimension: int, name: str = "PlainConvUNet") -> dict[str, Any]:
    """Return the block that v2 writes from 2.4 on."""
    units = "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": {
            "n_stages": 2,
            "features_per_stage": FEATURES,
            "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
            "kernel_sizes": [[3] * dimension] * 2,
            "strides": [[1] * dimension, [2] * dimension],
            units: [1, 1],
            "n_conv_per_stage_decoder": [1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimension}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans_json() -> dict[str, Any]:
    """Return plans of two configurations: one channel, normalised as CT by (x - 100) / 50."""
    splines = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    deep = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [4, 8, 8],
        "median_image_size_in_voxels": [4, 8, 8],
        "spacing": [2.0, 1.0, 1.0],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": splines,
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**splines, "order": 1},
        "architecture": architecture(3),
        "batch_dice": False,
    }
    flat = {
        **deep, "data_identifier": "nnUNetPlans_2d", "patch_size": [8, 8], "spacing": [1.0, 1.0],
        "median_image_size_in_voxels": [8, 8], "architecture": architecture(2),
    }  # fmt: skip
    return {
        "dataset_name": "Dataset501_Cells",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [2.0, 1.0, 1.0],
        "original_median_shape_after_transp": [4, 8, 8],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {
            "2d": flat,
            "3d_fullres": deep,
            "3d_lowres": {"inherits_from": "3d_fullres", "spacing": [4.0, 2.0, 2.0]},
            "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
        },
        "foreground_intensity_properties_per_channel": {
            "0": {"mean": 100.0, "std": 50.0, "median": 100.0, "min": -50.0, "max": 300.0,
                  "percentile_00_5": 0.0, "percentile_99_5": 200.0}
        },
    }  # fmt: skip


def dataset_json() -> dict[str, Any]:
    """Return a data set of two labels and one to ignore."""
    return {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "cell": 1, "ignore": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }


def write_model(
    folder: Path,
    weights: Mapping[str, Tensor],
    *,
    plans: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    folds: tuple[str, ...] = ("fold_0",),
    **changes: Any,
) -> Path:
    """Write a results folder of v2 with the same weights in each fold, and return it.

    Keywords replace entries of the checkpoints.
    """
    for fold in folds:
        (folder / fold).mkdir(parents=True, exist_ok=True)
        content = {
            "network_weights": dict(weights),
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float32(0.5)], "ema_fg_dice": [np.float64(0.5)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 3,
            "init_args": {"configuration": folder.name.split("__")[2], "fold": 0,
                          "device": torch.device("cpu")},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 2),
            **changes,
        }  # fmt: skip
        torch.save(content, folder / fold / "checkpoint_final.pth")
    save_json(plans_json() if plans is None else plans, folder / "plans.json")
    save_json(dataset_json() if dataset is None else dataset, folder / "dataset.json")
    return folder


class Threshold(nn.Module):
    """In place of a network: its logits are 0 and `weight` times the image."""

    def __init__(self, input_channels: int, num_classes: int, **arguments: Any) -> None:
        super().__init__()
        self.made = (input_channels, num_classes)
        self.arguments = arguments
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, 2, ...)."""
        return torch.cat([torch.zeros_like(image), self.weight * image], dim=1)


def stand_in(network: Callable[..., nn.Module] = Threshold) -> SimpleNamespace:
    """Return what stands for the package of v2's networks."""
    return SimpleNamespace(PlainConvUNet=network, ResidualEncoderUNet=network)
