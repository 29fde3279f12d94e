"""How far a case lies from those that a model was trained on.

A network predicts something for any input. What planning measured on the training cases tells
whether a case resembles them; where it does not, a warning says by how much. Nothing is refused.
Axes: C channels, D, H, W.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from nnunetlike.core.typing import FloatArray
from nnunetlike.data.record import CaseRecord
from nnunetlike.plans.fingerprint import IntensityStatistics
from nnunetlike.plans.plans import Plans

SPACING_FACTOR = 1.5
"""Times finer than the finest training spacing, or coarser than the coarsest, that is told."""

EXTENT_FACTOR = 2.0
"""Times smaller than the smallest training case (mm), or larger than the largest, that is told."""

COVERED = 0.75
"""Share of the intensities of the training foreground that an image should reach."""

SPREAD = 50.0
"""Times wider than the training foreground that the bulk of the intensities may spread.

All four are ours: wide enough for the training cases of the Decathlon among themselves, narrow
enough for metres taken for millimetres, CT scaled to 0..1 or without its offset of 1024."""

ENOUGH = 10**6
"""Voxels that tell the bulk of the intensities."""

logger = logging.getLogger(__name__)


def warn_if_unfamiliar(
    case_id: str, plans: Plans, image: FloatArray, record: CaseRecord
) -> list[str]:
    """Log one warning that names all in which a case is far from the training cases.

    Args:
        case_id: how the case is called.
        plans: of the model, with the fingerprint of its training cases.
        image: (C, D, H, W) after cropping, before anything else.
        record: spacing and size of the case, and how it was turned. Videos are not judged.

    Returns:
        What was found, one sentence each; nothing where the case is like those of the training.
    """
    if record.video is not None:
        return []
    found = [*_spacing(plans, record), *_extent(plans, record), *_intensities(plans, image)]
    if found:
        logger.warning(
            "%s is unlike the training cases, so its prediction may be poor: %s",
            case_id,
            "; ".join(found),
        )
    return found


def _spacing(plans: Plans, record: CaseRecord) -> Iterator[str]:
    known = np.array(plans.fingerprint.spacings, float).reshape(-1, 3)
    spacing = record.turn.order(record.original_spacing)
    yield from _outside("its spacing", spacing, known, SPACING_FACTOR)


def _extent(plans: Plans, record: CaseRecord) -> Iterator[str]:
    spacings = np.array(plans.fingerprint.spacings, float).reshape(-1, 3)
    sizes = np.array(plans.fingerprint.sizes, float).reshape(-1, 3)
    if len(sizes) != len(spacings):
        return
    extent = np.multiply(record.size_after_cropping, record.original_spacing)
    turned = record.turn.order(extent.tolist())
    yield from _outside("its extent", turned, sizes * spacings, EXTENT_FACTOR)


def _outside(
    what: str, values: tuple[float, ...], known: FloatArray, tolerated: float
) -> Iterator[str]:
    """Yield a sentence for each axis on which a value (mm) is far outside the known ones."""
    if not len(known):
        return
    limits = zip(values, known.min(axis=0), known.max(axis=0), strict=True)
    for axis, (value, low, high) in zip("DHW", limits, strict=True):
        factor = max(value / high, low / value)
        if factor > tolerated:
            side = "above the largest" if value > high else "below the smallest"
            yield (
                f"{what} along {axis} is {value:.4g} mm, {factor:.3g} times {side} of the training "
                f"({low:.4g} to {high:.4g} mm)"
            )


def _intensities(plans: Plans, image: FloatArray) -> Iterator[str]:
    """Yield what is strange about intensities; only CT's were kept by planning."""
    known = plans.fingerprint.intensities or {}
    for number, (channel, name) in enumerate(sorted(plans.modalities.items())):
        values = image[number]
        low, high = float(values.min()), float(values.max())
        if low == high:
            yield f"channel {channel} ({name}) holds {low:g} everywhere"
        elif channel in known and plans.normalization_schemes.get(channel) in ("CT", "CT2"):
            yield from _against(f"channel {channel} ({name})", values, known[channel].overall)


def _against(what: str, values: FloatArray, trained: IntensityStatistics) -> Iterator[str]:
    begin, end = trained.percentile_00_5, trained.percentile_99_5
    if not end > begin:  # NaN where the training had no foreground
        return
    low, high = float(values.min()), float(values.max())
    covered = max(min(high, end) - max(low, begin), 0.0) / (end - begin)
    if covered < COVERED:
        yield (
            f"{what} reaches from {low:.4g} to {high:.4g}, which covers {covered:.0%} of the "
            f"intensities of the training's structures ({begin:.4g} to {end:.4g})"
        )
        return
    some = values.reshape(-1)[:: max(1, values.size // ENOUGH)]
    bottom, top = np.percentile(some, (0.5, 99.5))
    factor = float(top - bottom) / (end - begin)
    if factor > SPREAD:
        yield (
            f"{what} spreads from {bottom:.4g} to {top:.4g}, {factor:.3g} times as wide as the "
            f"training's structures ({begin:.4g} to {end:.4g})"
        )
