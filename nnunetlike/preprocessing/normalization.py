"""Intensities to the scale the network was trained on, channel by channel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetlike.core.errors import PlanError, UsageError
from nnunetlike.core.typing import BoolArray, FloatArray, LabelMap
from nnunetlike.plans.fingerprint import ChannelIntensities, IntensityStatistics

EPSILON = 1e-8
"""Added to the deviation, so that a constant image becomes 0."""

LARGEST_BYTE = 255


def normalize(
    image: npt.NDArray[Any],
    label: LabelMap,
    *,
    schemes: Mapping[int, str],
    use_mask: Mapping[int, bool],
    intensities: Mapping[int, ChannelIntensities] | None,
    out: npt.NDArray[np.float32] | None = None,
) -> npt.NDArray[np.float32]:
    """Return the image with each channel normalised by its scheme, in single precision.

    Schemes: `CT` clips to the data set's foreground percentiles 0.5 and 99.5 and standardises by
    its mean and deviation; `CT2` clips likewise and standardises by the voxels strictly between;
    `noNorm` does nothing; `to01` and `rgbTo01` (nnU-Net v2) bring the case's minimum and maximum,
    or 0 and 255, to 0 and 1, mask or not; `nonCT` (and any other name) standardises by the case
    itself. What does not vary at all becomes 0, but for `noNorm` and `rgbTo01`.

    Args:
        image: (C, ...).
        label: (...), -1 outside the body.
        schemes: by channel.
        use_mask: by channel; True leaves the outside of the body out and sets it to 0.
        intensities: by channel, of the data set; needed by CT and CT2.
        out: where to write the result, `image` itself if that may change; a new array when absent.

    Raises:
        UsageError: a channel has no scheme.
        PlanError: a channel is CT and its intensities are missing.
    """
    out = np.empty(image.shape, np.float32) if out is None else out
    if out is not image:
        out[...] = image
    for index, channel in enumerate(out):
        if index not in schemes or index not in use_mask:
            raise UsageError(
                f"channel {index} has no normalisation scheme; the plans know channels "
                f"{sorted(schemes)}, but the case has {len(out)}"
            )
        scheme = _SCHEMES.get(schemes[index], _by_case)
        inside = label >= 0 if use_mask[index] else None
        scheme(channel, inside, _known(intensities, index, schemes[index]))
    return out


def _known(
    intensities: Mapping[int, ChannelIntensities] | None, index: int, scheme: str
) -> IntensityStatistics | None:
    if scheme not in ("CT", "CT2"):
        return None
    if intensities is None or index not in intensities:
        raise PlanError(
            f"channel {index} is normalised as {scheme}, but the plans hold no intensities of it. "
            "Plan this data set again"
        )
    return intensities[index].overall


def _by_data_set(
    channel: FloatArray, inside: BoolArray | None, known: IntensityStatistics | None
) -> None:
    assert known is not None
    np.clip(channel, known.percentile_00_5, known.percentile_99_5, out=channel)
    channel -= known.mean
    channel /= known.sd or 1.0
    if inside is not None:
        channel[~inside] = 0


def _by_case_within_window(
    channel: FloatArray, inside: BoolArray | None, known: IntensityStatistics | None
) -> None:
    assert known is not None
    low, high = known.percentile_00_5, known.percentile_99_5
    within = channel[(channel > low) & (channel < high)]
    np.clip(channel, low, high, out=channel)
    values = within if within.size else channel
    mean, deviation = values.mean(), values.std()
    channel -= mean
    channel /= deviation or 1.0
    if inside is not None:
        channel[~inside] = 0


def _by_case(
    channel: FloatArray, inside: BoolArray | None, known: IntensityStatistics | None
) -> None:
    del known
    values = channel if inside is None else channel[inside]
    mean, deviation = values.mean(), values.std() + np.float32(EPSILON)
    channel -= mean
    channel /= deviation
    if inside is not None:
        channel[~inside] = 0


def _not_at_all(
    channel: FloatArray, inside: BoolArray | None, known: IntensityStatistics | None
) -> None:
    del channel, inside, known


def _by_range(
    channel: FloatArray, inside: BoolArray | None, known: IntensityStatistics | None
) -> None:
    del inside, known
    channel -= channel.min()
    channel /= max(channel.max(), EPSILON)


def _by_byte(
    channel: FloatArray, inside: BoolArray | None, known: IntensityStatistics | None
) -> None:
    del inside, known
    channel /= LARGEST_BYTE


_Scheme = Callable[[FloatArray, BoolArray | None, IntensityStatistics | None], None]
_SCHEMES: Mapping[str, _Scheme] = {
    "CT": _by_data_set,
    "CT2": _by_case_within_window,
    "noNorm": _not_at_all,
    "to01": _by_range,
    "rgbTo01": _by_byte,
}
