"""A self-configuring segmentation pipeline in the manner of nnU-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunetlike.predictor import Predictor as Predictor

__version__ = "0.1.0"
__all__ = ["Predictor", "__version__"]


def __getattr__(name: str) -> Any:
    """Return `Predictor`, which is imported when it is first asked for: it needs torch."""
    if name != "Predictor":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from nnunetlike.predictor import Predictor  # keeps `import nnunetlike` light

    return Predictor
