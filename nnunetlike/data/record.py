"""What happened to one case on its way to the network, so that a prediction can go back.

The on-disk form is nnU-Net v1's properties pickle; its keys are known to this module only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunetlike.core.typing import IntArray, Shape3, Spacing3
from nnunetlike.data.imageio import format_of
from nnunetlike.data.orientation import AS_STORED, Turn, orientation_of
from nnunetlike.data.video import VideoFacts

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class CaseRecord:
    """Facts of one case. Axes are D, H, W of the file unless a field says `transposed`.

    Transposed axes are those of the network: turned as `turn` says, then in the order of the plans.
    """

    original_size: Shape3
    original_spacing: Spacing3
    image_files: tuple[str, ...]
    label_file: str | None
    itk_origin: Spacing3
    itk_spacing: Spacing3
    itk_direction: tuple[float, ...]
    crop_box: Box
    """Half-open box of the non-zero region."""

    classes: tuple[float, ...]
    """Values of the label after cropping, -1 (outside the non-zero mask) included."""

    size_after_cropping: Shape3
    use_nonzero_mask: Mapping[int, bool] | None = None
    size_after_resampling: Shape3 | None = None
    """Transposed axes."""

    spacing_after_resampling: Spacing3 | None = None
    """Transposed axes, mm."""

    class_locations: Mapping[int, IntArray] | None = None
    """Sampled voxels of each class, int64 (n, 3), transposed and resampled axes; absent: (0, 3)."""

    video: VideoFacts | None = None
    """Of a video, whose axis D is time."""

    turn: Turn = AS_STORED
    """How the file's axes were turned towards the orientation of the plans."""

    @property
    def orientation(self) -> str | None:
        """Where the axes of the file point (`LPS`).

        None of videos, of images one voxel thick, and of formats that do not say.
        """
        if self.video is not None or 1 in self.original_size:
            return None
        if self.image_files and not format_of(Path(self.image_files[0])).oriented:
            return None
        return orientation_of(self.itk_direction)

    @property
    def size_reduction(self) -> float:
        """Share of the voxels that cropping left."""
        return float(np.prod(self.size_after_cropping) / np.prod(self.original_size))

    def resampled(
        self, size: Shape3, spacing: Spacing3, locations: Mapping[int, IntArray] | None
    ) -> CaseRecord:
        """Return the record with what preprocessing found (transposed axes)."""
        return replace(
            self,
            size_after_resampling=size,
            spacing_after_resampling=spacing,
            class_locations=locations,
        )

    def to_v1(self) -> dict[str, Any]:
        """Return v1's properties; an absent class has an empty list of locations."""
        content: dict[str, Any] = OrderedDict(
            original_size_of_raw_data=list(self.original_size),
            original_spacing=list(self.original_spacing),
            list_of_data_files=list(self.image_files),
            seg_file=self.label_file,
            itk_origin=self.itk_origin,
            itk_spacing=self.itk_spacing,
            itk_direction=self.itk_direction,
            crop_bbox=[list(side) for side in self.crop_box],
            classes=list(self.classes),
            size_after_cropping=self.size_after_cropping,
        )
        if self.use_nonzero_mask is not None:
            content["use_nonzero_mask_for_norm"] = OrderedDict(self.use_nonzero_mask)
        if self.size_after_resampling is not None:
            content["size_after_resampling"] = self.size_after_resampling
            content["spacing_after_resampling"] = list(self.spacing_after_resampling or ())
        if self.class_locations is not None:
            content["class_locations"] = OrderedDict(
                (label, found if len(found) else [])
                for label, found in self.class_locations.items()
            )
        if self.video is not None:
            content["video"] = self.video.to_plain()
        if self.turn != AS_STORED:
            content["turned"] = [self.turn.source, self.turn.target]
        return content

    @classmethod
    def from_v1(cls, content: Mapping[str, Any]) -> CaseRecord:
        """Return the record that v1 or `to_v1` wrote."""
        resampled = content.get("size_after_resampling")
        spacing = content.get("spacing_after_resampling")
        locations = content.get("class_locations")
        masks = content.get("use_nonzero_mask_for_norm")
        video = content.get("video")
        return cls(
            original_size=_ints(content["original_size_of_raw_data"]),
            original_spacing=_floats(content["original_spacing"]),
            image_files=tuple(content["list_of_data_files"]),
            label_file=content.get("seg_file"),
            itk_origin=_floats(content["itk_origin"]),
            itk_spacing=_floats(content["itk_spacing"]),
            itk_direction=tuple(float(v) for v in content["itk_direction"]),
            crop_box=_box(content["crop_bbox"]),
            classes=tuple(float(v) for v in content.get("classes", ())),
            size_after_cropping=_ints(content["size_after_cropping"]),
            use_nonzero_mask=None if masks is None else {int(k): bool(v) for k, v in masks.items()},
            size_after_resampling=None if resampled is None else _ints(resampled),
            spacing_after_resampling=None if spacing is None else _floats(spacing),
            class_locations=None
            if locations is None
            else {int(k): np.asarray(v, np.int64).reshape(-1, 3) for k, v in locations.items()},
            video=None if video is None else VideoFacts.from_plain(video),
            turn=Turn(*content["turned"]) if "turned" in content else AS_STORED,
        )


def _ints(values: Any) -> Shape3:
    a, b, c = (int(v) for v in values)
    return a, b, c


def _floats(values: Any) -> Spacing3:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _box(sides: Any) -> Box:
    (a, b), (c, d), (e, f) = sides
    return (int(a), int(b)), (int(c), int(d)), (int(e), int(f))
