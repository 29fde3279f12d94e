"""One case on its way to the network: read, crop, transpose, resample, normalise."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from nnunetlike.core.errors import DataError, PlanError, ShapeError
from nnunetlike.core.serialization import to_plain
from nnunetlike.core.typing import BoolArray, FloatArray, LabelMap, Shape3, Spacing3
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.geometry import SLICE_THICKNESS, Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.data.orientation import AS_STORED, Turn
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.video import VideoFacts
from nnunetlike.data.video_faults import strange_values, video_faults
from nnunetlike.plans.plans import Plans, StagePlan
from nnunetlike.preprocessing.class_locations import sample_class_locations
from nnunetlike.preprocessing.cropping import OUTSIDE, Cropped, crop_to_nonzero, present_labels
from nnunetlike.preprocessing.label_resampling import resample_label
from nnunetlike.preprocessing.normalization import normalize
from nnunetlike.preprocessing.resampling import resample_image, separate_axis
from nnunetlike.preprocessing.sector import crop_to_sector, sector

logger = logging.getLogger(__name__)

KEEPS_THROUGH_PLANE = {"GenericPreprocessor": False, "PreprocessorFor2D": True}
"""By v1's name of the preprocessor: does the first (transposed) axis keep its own spacing?"""

CLIPPED = {"CT", "CT2"}
"""Schemes that keep a small part of the range, so that rounding while resampling counts for more:
their images are resampled in double precision."""

RECIPE_VERSION = 1
"""Raised when the same plans lead to other preprocessed cases than before."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A case as the network sees it. Axes are transposed and resampled."""

    image: FloatArray
    """(C, d, h, w) float32, normalised."""

    label: LabelMap
    """(d, h, w) int16; -1 is outside the non-zero mask."""

    record: CaseRecord
    place: FloatArray
    """(C + 1, d, h, w) float32, of which `image` is the beginning; the rest is not set."""

    def stacked(self) -> FloatArray:
        """Return image channels and label as one float32 array (C + 1, d, h, w), in `place`."""
        self.place[-1] = self.label
        return self.place


@dataclass(frozen=True)
class Preprocessor:
    """Brings cropped cases to one stage of the plans.

    Args:
        plans: of the data set the network was, or will be, trained on.
        stage: number of the stage.

    Raises:
        PlanError: the plans have no such stage, or ask for a preprocessor that is not known.
    """

    plans: Plans
    stage: int

    def __post_init__(self) -> None:
        if self.stage not in self.plans.stages:
            raise PlanError(
                f"the plans have no stage {self.stage}; they have {sorted(self.plans.stages)}"
            )
        if self.plans.preprocessor_name not in KEEPS_THROUGH_PLANE:
            raise PlanError(
                f"the plans ask for the preprocessor {self.plans.preprocessor_name!r}; known are "
                f"{', '.join(KEEPS_THROUGH_PLANE)}. Plan this dataset again"
            )

    @property
    def stage_plan(self) -> StagePlan:
        """The plan of the stage."""
        return self.plans.stages[self.stage]

    def target_spacing(self, spacing: Spacing3) -> Spacing3:
        """Return the spacing after resampling, given the case's own (both transposed, mm).

        A 2D network sees slices one by one, so across them its cases keep their own spacing.
        """
        first, second, third = self.stage_plan.spacing
        if KEEPS_THROUGH_PLANE[self.plans.preprocessor_name]:
            return spacing[0], second, third
        return first, second, third

    def turn(self, record: CaseRecord) -> Turn:
        """Return how a case is turned: not at all unless plans and file say where axes point."""
        wanted = self.plans.orientation
        found = record.orientation if wanted else None
        return Turn(found, wanted) if found and wanted else AS_STORED

    def spacing(self, record: CaseRecord) -> Spacing3:
        """Return the spacing of a case before resampling, transposed, mm."""
        turned = self.turn(record).order(record.original_spacing)
        a, b, c = (turned[axis] for axis in self.plans.transpose_forward)
        return a, b, c

    @property
    def recipe(self) -> str:
        """A hash of all in the plans that decides what `apply` returns.

        Patch sizes and the like are not among it: a plan that differs in those only asks for the
        same preprocessed cases.
        """
        plans, intensities = self.plans, self.plans.fingerprint.intensities
        decisive = (
            RECIPE_VERSION,
            plans.preprocessor_name,
            plans.transpose_forward,
            self.stage_plan.spacing,
            sorted(plans.normalization_schemes.items()),
            sorted(plans.use_mask_for_norm.items()),
            plans.classes,
            [(k, asdict(v.overall)) for k, v in sorted((intensities or {}).items())],
            *([] if plans.orientation is None else [plans.orientation]),
        )
        return hashlib.sha256(json.dumps(to_plain(decisive)).encode()).hexdigest()

    def apply(
        self, cropped: Cropped, record: CaseRecord, *, sample_classes: bool = True
    ) -> Prepared:
        """Return the case turned as the plans ask, transposed, resampled and normalised.

        Voxels that are not numbers become 0 (v1 does so in 3D only). Arguments are not changed.

        Args:
            cropped: image and label as `read_and_crop` gives them.
            record: what is known of the case.
            sample_classes: also draw voxels of each class, which training needs.
        """
        axes, turn = self.plans.transpose_forward, self.turn(record)
        image = turn.apply(cropped.image).transpose(0, *(1 + axis for axis in axes))
        image = _without_nan(image)
        inside = None if record.video is None else sector(cropped.image)
        label = turn.apply(cropped.label).transpose(axes)
        spacing = self.spacing(record)
        target = self.target_spacing(spacing)
        depth, height, width = label.shape
        shape = resampled_shape((depth, height, width), spacing, target)
        place: FloatArray = np.empty((len(image) + 1, *shape), np.float32)
        out = place[:-1]
        before = self.plans.conventions == "v2"
        if before:
            image = self._normalized(image, label)
        image, label = resampled(
            image, label, spacing, target, out=out, double=self._in_double(), **_asked(self.plans)
        )
        if label.min() < OUTSIDE:
            label = np.where(label < OUTSIDE, 0, label)
        label = label.astype(np.int16, copy=False)
        if before and image is not out:
            out[:] = image
        elif not before:
            mask = label if inside is None else _in_all_frames(inside, shape)
            self._normalized(image, mask, out)
        locations = sample_class_locations(label, self.plans.classes) if sample_classes else None
        found = record.resampled(shape, target, locations)
        found = replace(found, use_nonzero_mask=self.plans.use_mask_for_norm, turn=turn)
        return Prepared(image=out, label=label, record=found, place=place)

    def _in_double(self) -> bool:
        """Tell whether images are resampled in double precision."""
        schemes = self.plans.normalization_schemes.values()
        return self.plans.conventions != "v2" and not CLIPPED.isdisjoint(schemes)

    def _normalized(
        self, image: FloatArray, label: LabelMap, out: FloatArray | None = None
    ) -> FloatArray:
        return normalize(
            image,
            label,
            schemes=self.plans.normalization_schemes,
            use_mask=self.plans.use_mask_for_norm,
            intensities=self.plans.fingerprint.intensities,
            out=out,
        )


def _asked(plans: Plans) -> dict[str, Any]:
    """Return how plans ask for images to be resampled, where it is not as v1 does it."""
    asked = plans.extra.get("image_resampling_params")
    if plans.conventions == "v1" or asked is None:
        return {}
    return {
        "order": asked["interpolation_order"],
        "order_z": asked["interpolation_order_z"],
        "force": asked["force_separate_z"],
    }


def _in_all_frames(inside: BoolArray, shape: tuple[int, ...]) -> LabelMap:
    """Return a sector (h, w) at the size of frames, in all of them (T, H, W): 0, outside -1.

    The labels do not tell it, since frames without one hold another value everywhere.
    """
    outside = np.where(inside, 0, OUTSIDE).astype(np.int16)[None]
    resized = resample_label(outside, (1, *shape[1:]), order=1, axis=0)
    return np.broadcast_to(resized, shape)


def read_and_crop(files: CaseFiles) -> tuple[Cropped, CaseRecord]:
    """Read the images and the label of a case and crop them to the non-zero region.

    Of a video, time is not cropped, and what is outside is so in all its frames; its
    `original_spacing` along time is that between slices that nothing joins.

    Args:
        files: paths; without a label the result's label is 0 inside the mask and -1 outside.

    Returns:
        The cropped arrays, and the record that leads back to the file's grid. Voxels of the image
        that are NaN or infinite are 0; a warning names the file.

    Raises:
        DataError: a file cannot be read, has more or fewer channels than it should, or the image is
            zero everywhere; or a video, its label and its facts contradict one another.
        ShapeError: label and image differ in size.
    """
    image, geometry = format_of(files.images[0]).read(files.images)
    if files.channels is not None and len(image) != files.channels:
        raise DataError(
            f"{files.case_id}: {files.images[0].name} holds {len(image)} channels, but the "
            f"task has {files.channels}. A colour picture has three, R, G and B: name them all in "
            "dataset.json, or save the picture in grey"
        )
    label: LabelMap | None = None
    if files.label is not None:
        label, _ = format_of(files.label).read_label(files.label)
        _require_one_grid(files, label, geometry)
    return crop_read(image, label, geometry, files)


def crop_read(
    image: FloatArray, label: LabelMap | None, geometry: Geometry, files: CaseFiles
) -> tuple[Cropped, CaseRecord]:
    """Return what `read_and_crop` does, of a case that is in memory.

    Args:
        image: (C, D, H, W).
        label: (D, H, W), or None.
        geometry: their grid.
        files: what the case is called and where it comes from; they are not read.

    Raises:
        DataError: the image is zero everywhere.
    """
    image = _finite(image, files)
    cropped = (crop_to_nonzero if files.video is None else crop_to_sector)(image, label)
    depth, height, width = cropped.label.shape
    return cropped, CaseRecord(
        original_size=geometry.shape,
        original_spacing=_spacing(geometry, files.video),
        image_files=tuple(str(path) for path in files.images),
        label_file=None if files.label is None else str(files.label),
        itk_origin=geometry.origin,
        itk_spacing=geometry.itk_spacing,
        itk_direction=geometry.direction,
        crop_box=cropped.box,
        classes=tuple(float(value) for value in present_labels(cropped.label)),
        size_after_cropping=(depth, height, width),
        video=files.video,
    )


def _spacing(geometry: Geometry, video: VideoFacts | None) -> Spacing3:
    """Return a case's spacing (mm), in which time is as slices that nothing joins.

    It is 1 in the plane of a video whose spacing is not known, whatever its file says.
    """
    if video is None:
        return geometry.spacing
    depth, height, width = SLICE_THICKNESS, *geometry.spacing[1:]
    return (depth, height, width) if video.spacing_known else (depth, 1.0, 1.0)


def _require_one_grid(files: CaseFiles, label: LabelMap, geometry: Geometry) -> None:
    """Do nothing if a label fits its image and, of a video, its facts.

    Raises:
        ShapeError: it has another shape.
        DataError: of a video, labels or facts contradict one another; says all of it.
    """
    if label.shape != geometry.shape:
        axes = "(D, H, W)" if files.video is None else "(T, H, W)"
        raise ShapeError(
            f"{files.case_id}: the label has {label.shape} voxels {axes} but the image "
            f"{geometry.shape} ({files.label}). Export the label on the image grid, or take "
            "the case out of dataset.json"
        )
    if files.video is None or files.labels is None:
        return
    faults = [
        *strange_values(label, files.labels),
        *video_faults(files.video, files.labels, len(label), label),
    ]
    if faults:
        raise DataError(
            f"{files.case_id}: {'; '.join(faults)} ({files.label}). Correct the label map or the "
            "facts of the video, or take the case out of dataset.json"
        )


def _finite(image: FloatArray, files: CaseFiles) -> FloatArray:
    """Return an image (C, D, H, W) with 0 where it is not finite, and warn of that.

    Source: nnU-Net v1, where SimpleITK reads such voxels of NIfTI as 0 without a word.
    """
    with np.errstate(invalid="ignore"):
        if np.isfinite(image.min()) and np.isfinite(image.max()):  # both are NaN if a voxel is
            return image
    wrong = ~np.isfinite(image)
    for number, channel in enumerate(wrong):
        if channel.any():
            path = (
                files.images[min(number, len(files.images) - 1)] if files.images else files.case_id
            )
            logger.warning(
                "%s: %d of %d voxels are NaN or infinite and count as 0. nnUNet_verify_dataset "
                "names all such files; with --fix OUT --fill minimum it fills them",
                path,
                np.count_nonzero(channel),
                channel.size,
            )
    return np.where(wrong, np.float32(0), image)


def resampled_shape(shape: Shape3, spacing: Spacing3, target: Spacing3) -> Shape3:
    """Return a shape in voxels after resampling from `spacing` to `target` (half to even)."""
    exact = np.array(spacing) / np.array(target) * shape
    depth, height, width = (int(n) for n in np.round(exact))
    return depth, height, width


def resampled(
    image: FloatArray,
    label: LabelMap,
    spacing: Spacing3,
    target: Spacing3,
    *,
    order: int = 3,
    order_z: int = 0,
    force: bool | None = None,
    double: bool = False,
    out: FloatArray | None = None,
) -> tuple[FloatArray, LabelMap]:
    """Return an image (C, D, H, W) and its label (D, H, W) at another spacing (mm).

    Cubic splines for the image, linear for the label; along a coarse axis nearest neighbour.

    Args:
        image: (C, D, H, W).
        label: (D, H, W).
        spacing: of both, mm.
        target: to reach, mm.
        order: of the image's splines.
        order_z: of them along a coarse axis.
        force: of the image, take the coarsest axis for coarse (True) or none (False); None: where
            spacings ask for it.
        double: resample the image in double precision.
        out: where to write the image, if its shape changes.
    """
    depth, height, width = label.shape
    shape = resampled_shape((depth, height, width), spacing, target)
    axis, apart = separate_axis(spacing, target), separate_axis(spacing, target, force)
    return (
        resample_image(
            image, shape, order=order, axis=apart, order_z=order_z, double=double, out=out
        ),
        resample_label(label, shape, order=1, axis=axis, order_z=0),
    )


def _without_nan(image: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore"):
        missing = bool(np.isnan(image.min()))  # as it is if a voxel is
    return np.where(np.isnan(image), np.float32(0), image) if missing else image
