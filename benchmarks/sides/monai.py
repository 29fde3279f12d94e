"""MONAI: its own functions, in its own environment; NumPy is all that is imported here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DISTRIBUTIONS = ("monai", "torch", "numpy", "scipy")
Call = Callable[[], Any]


def hd95(folder: Path) -> Call:
    """`compute_hausdorff_distance` of one mask."""
    import torch
    from monai.metrics import compute_hausdorff_distance

    torch.set_num_threads(1)
    reference, prediction = (
        np.load(folder / f"{name}.npy") for name in ("reference", "prediction")
    )

    def call() -> Mapping[str, Any]:
        masks = (torch.from_numpy(label == 1)[None, None] for label in (prediction, reference))
        found = compute_hausdorff_distance(
            *masks, include_background=True, percentile=95, spacing=(1.0, 1.0, 1.0)
        )
        return {"1": found.numpy()[0, 0]}

    return call


STAGES: Mapping[str, Callable[[Path], Call]] = {"hd95": hd95}
