"""From probabilities on the network's grid to a label file on the grid of the source image.

Axes: probabilities (K, d, h, w) lie on the resampled grid with turned and transposed axes, as the
network saw the image; label maps (D, H, W) on the grid and in the axis order of the source file.
Interpolation comes before turning back, so a case gets the same labels however it is stored.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetlike.core.serialization import atomic_path, save_pickle
from nnunetlike.core.typing import LabelMap, Shape3
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of, split_ending
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import save_npz_in_parts
from nnunetlike.inference.spill import Spilled
from nnunetlike.plans.plans import Plans
from nnunetlike.postprocessing.determine import apply_postprocessing
from nnunetlike.preprocessing.cropping import uncrop
from nnunetlike.preprocessing.label_export import HALF
from nnunetlike.preprocessing.label_resampling import resample_label
from nnunetlike.preprocessing.label_stream import LabelStream
from nnunetlike.preprocessing.resampling import resample_image, separate_axis


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """How predictions return to the source grid."""

    transpose_backward: tuple[int, int, int] = (0, 1, 2)
    """Which network axis becomes each axis of the file (turned, see `CaseRecord.turn`)."""

    order: int = 1
    """Spline order of the interpolation."""

    order_z: int = 0
    """Order along the axis that is handled separately."""

    force_separate_z: bool | None = None
    """Handle the coarsest axis separately: yes, no, or where spacings ask for it (None)."""

    regions: tuple[int, ...] | None = None
    """Label of each channel when channels are regions (v1's regions_class_order); else None."""

    logits: bool = False
    """What comes from the network are logits (nnU-Net v2): softmax, or of regions the logistic
    function, is due after interpolation."""

    @classmethod
    def of(cls, plans: Plans) -> ExportSettings:
        """Return the settings of plans; `segmentation_export_params` overrides the defaults."""
        asked = plans.extra.get("segmentation_export_params") or {}
        return cls(
            transpose_backward=plans.transpose_backward,
            order=int(asked.get("interpolation_order", 1)),
            order_z=int(asked.get("interpolation_order_z", 0)),
            force_separate_z=asked.get("force_separate_z"),
            logits=plans.conventions == "v2",
            regions=plans.regions,
        )

    def axis(self, record: CaseRecord) -> int | None:
        """Return the axis of the file, turned, that is resampled separately, or None.

        nnU-Net v1 looks at the source spacing first, then at the spacing of the network's grid,
        but reads the latter in transposed order, so with permuted axes it may pick a wrong one.
        Here it is brought into file order first; both agree wherever axes are not permuted, or the
        source spacing decides. nnU-Net v2 looks at the network's grid first.
        """
        source = record.turn.order(record.original_spacing)
        target = record.spacing_after_resampling or source
        a, b, c = (target[axis] for axis in self.transpose_backward)
        grids = (source, (a, b, c))
        first, second = grids[::-1] if self.logits else grids
        return separate_axis(first, second, self.force_separate_z)


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where one prediction is written and what is done on the way."""

    path: Path
    """Label file; its suffix chooses the format."""

    save_npz: bool = False
    """Also write `ID.npz` (probabilities) and `ID.pkl` (properties) beside it."""

    postprocessing: dict[str, Any] | None = None
    """Content of a postprocessing.json to apply before the file gets its name."""


def export_settled(
    label: LabelMap,
    kept: Spilled | None,
    record: CaseRecord,
    settings: ExportSettings,
    destination: Destination,
) -> None:
    """Write a label map of the cropped source and, where they were kept, probabilities.

    Of probabilities one class is in memory at a time; of logits, all of them.

    Args:
        label: (D, H, W), see `LabelWithinBox`.
        kept: probabilities (K, d, h, w) on the network's grid, removed afterwards; or None.
        record: what preprocessing did to the case.
        settings: interpolation and axes.
        destination: file and extras.
    """
    if kept is not None:
        _save_probabilities(kept, record, settings, destination.path)
        kept.remove()
    write_label(label, record, destination)


def label_within_box(
    probabilities: npt.NDArray[np.float32], record: CaseRecord, settings: ExportSettings
) -> LabelMap:
    """Return the most probable label of every voxel of the cropped source, uint8 or uint16.

    Args:
        probabilities: (K, d, h, w) on the network's grid.
        record: what preprocessing did to the case.
        settings: interpolation and axes.
    """
    found = LabelWithinBox(probabilities.shape, record, settings)
    found.see(probabilities)
    return found.label()


class LabelWithinBox:
    """The label map of the cropped source, of probabilities that come in slabs along d.

    Args:
        shape: (K, d, h, w) of all slabs together, on the network's grid.
        record: what preprocessing did to the case.
        settings: interpolation and axes.
    """

    def __init__(self, shape: Sequence[int], record: CaseRecord, settings: ExportSettings) -> None:
        self._settings = settings
        self._back = record.turn.back
        backward = settings.transpose_backward
        self._stream = LabelStream(
            [shape[1 + axis] for axis in backward],
            record.turn.order(record.size_after_cropping),
            shape[0],
            along=backward.index(0),
            order=settings.order,
            axis=settings.axis(record),
            order_z=settings.order_z,
            regions=settings.regions,
        )

    def see(self, slab: npt.NDArray[np.float32]) -> None:
        """Take the next slab (K, d, h, w)."""
        self._stream.see(decisive(_to_file_axes(slab, self._settings), self._settings))

    def label(self) -> LabelMap:
        """Return the label of every voxel of the cropped source, uint8 or uint16."""
        return self._back.apply(self._stream.label())


class LabelOnNetworkGrid:
    """The label map of the network's grid, of probabilities that come in slabs along d.

    Args:
        shape: (K, d, h, w) of all slabs together.
        settings: how labels are decided.
    """

    def __init__(self, shape: Sequence[int], settings: ExportSettings) -> None:
        self._settings = settings
        self._stream = LabelStream(shape[1:], shape[1:], shape[0], regions=settings.regions)

    def see(self, slab: npt.NDArray[np.float32]) -> None:
        """Take the next slab (K, d, h, w)."""
        self._stream.see(decisive(slab, self._settings))

    def label(self) -> LabelMap:
        """Return the label of every voxel."""
        return self._stream.label()


def probabilities_within_box(
    probabilities: npt.NDArray[np.float32],
    record: CaseRecord,
    settings: ExportSettings,
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """Return probabilities (K, D, H, W) of the cropped source grid.

    Args:
        probabilities: (K, d, h, w) on the network's grid.
        record: what preprocessing did to the case.
        settings: interpolation and axes.
        dtype: of the result; float32 of one class at a time is held besides.
    """
    shape: Shape3 = record.size_after_cropping
    resized = np.empty((len(probabilities), *shape), np.float32 if settings.logits else dtype)
    for k, channel in enumerate(probabilities):
        resized[k] = _channel_within_box(channel, record, settings)
    if settings.logits:
        _make_probabilities(resized, settings.regions is not None)
    return resized.astype(dtype, copy=False)


def _channel_within_box(
    channel: npt.NDArray[np.float32], record: CaseRecord, settings: ExportSettings
) -> npt.NDArray[np.float32]:
    """Return a class (D, H, W) of the cropped source grid."""
    interpolated = resample_image(
        _to_file_axes(channel[None], settings), record.turn.order(record.size_after_cropping),
        order=settings.order, axis=settings.axis(record), order_z=settings.order_z,
    )  # fmt: skip
    return record.turn.back.apply(interpolated[0])


def decisive(
    probabilities: npt.NDArray[np.float32], settings: ExportSettings
) -> npt.NDArray[np.float32]:
    """Return what `resampled_argmax` decides by: logits of regions are moved from 0 to 1/2."""
    if settings.logits and settings.regions is not None:
        return probabilities + np.float32(HALF)
    return probabilities


def _make_probabilities(logits: npt.NDArray[np.float32], by_region: bool) -> None:
    """Turn logits (K, D, H, W) into probabilities, in place."""
    if by_region:
        np.tanh(np.divide(logits, 2, out=logits), out=logits)  # the logistic function, no overflow
        logits += 1
        logits /= 2
        return
    logits -= logits.max(axis=0)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=0)


def export_bytes(record: CaseRecord, settings: ExportSettings, kept: Spilled | None) -> int:
    """Return about how much memory `export_settled` takes in a process of its own (measured)."""
    need = 20 * prod(record.original_size)
    if kept is not None and settings.logits:  # all classes at once, here and on the network's grid
        need += 4 * prod(kept.shape) + 6 * kept.shape[0] * prod(record.size_after_cropping)
    return need


def export_label(
    label: LabelMap, record: CaseRecord, settings: ExportSettings, destination: Destination
) -> None:
    """Write a label map (d, h, w) of the network's grid on the source grid.

    Coarser than `export_settled` at borders, but the label map is all that travels. With
    order 0 each voxel takes the nearest label; else labels compete as in label resampling.
    """
    label = label.transpose(settings.transpose_backward)
    axis = None if settings.order == 0 else settings.axis(record)
    resized = resample_label(
        np.ascontiguousarray(label),
        record.turn.order(record.size_after_cropping),
        order=settings.order,
        axis=axis,
        order_z=settings.order_z,
    )
    write_label(record.turn.back.apply(resized), record, destination)


def keep(destination: Destination, shape: tuple[int, ...]) -> Spilled | None:
    """Return where probabilities of a shape (K, d, h, w) are kept until they are saved, or None.

    Raises:
        ResourceError: the disk has no room for them.
    """
    if not destination.save_npz:
        return None
    return Spilled.create(
        in_hand(destination.path, "probabilities"), shape, "keeping probabilities",
        "predict without --save_npz (-z)",
    )  # fmt: skip


def in_hand(path: Path, what: str) -> Path:
    """Return the name of a file beside a prediction while its case is in hand."""
    return path.with_name(f".tmp-{os.getpid()}-{path.name}.{what}")


def geometry_of(record: CaseRecord) -> Geometry:
    """Return the grid of a case's source files."""
    x, y, z = record.itk_spacing
    return Geometry(
        shape=record.original_size,
        spacing=(z, y, x),
        origin=record.itk_origin,
        direction=record.itk_direction,
        leading="single" if record.original_size[0] == 1 else "space",
    )


def companion(path: Path, suffix: str) -> Path:
    """Return the file `ID` + `suffix` beside a label file `ID.nii.gz`."""
    return path.with_name(split_ending(path.name)[0] + suffix)


def _to_file_axes(
    probabilities: npt.NDArray[np.float32], settings: ExportSettings
) -> npt.NDArray[np.float32]:
    axes = (0, *(axis + 1 for axis in settings.transpose_backward))
    return probabilities.transpose(axes)


def _save_probabilities(
    kept: Spilled, record: CaseRecord, settings: ExportSettings, path: Path
) -> None:
    """Write float16 probabilities of the cropped source grid and the case's properties."""
    channels: Iterable[npt.NDArray[Any]]
    if settings.logits:  # classes depend on one another
        values = kept.read(0, kept.shape[1])
        channels = probabilities_within_box(values, record, settings, np.float16)
    else:
        channels = (
            _channel_within_box(kept.channel(k), record, settings).astype(np.float16)
            for k in range(kept.shape[0])
        )
    shape = (kept.shape[0], *record.size_after_cropping)
    save_npz_in_parts(companion(path, ".npz"), "softmax", shape, np.float16, channels)
    properties = record.to_v1()
    if settings.regions is not None:
        properties["regions_class_order"] = list(settings.regions)
    save_pickle(properties, companion(path, ".pkl"))


def write_label(label: LabelMap, record: CaseRecord, destination: Destination) -> None:
    """Write a label map (D, H, W) of the cropped source grid into the source volume.

    The file gets its name when all is done, postprocessing included.
    """
    whole = uncrop(label, record.crop_box, record.original_size)
    path, source = destination.path, Path(record.image_files[0])
    if destination.postprocessing is None:
        format_of(path).write_label(whole, geometry_of(record), path, like=source)
        return
    with atomic_path(path) as temporary:
        format_of(path).write_label(whole, geometry_of(record), temporary, like=source)
        apply_postprocessing(temporary, temporary, destination.postprocessing)
