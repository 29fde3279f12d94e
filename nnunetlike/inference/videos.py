"""Prediction of videos: what is known of each beforehand, and what is made of its label file.

Facts of a video are in `ID.json` in the folder of the images, or in `casesTs/ID.json` beside a
folder `imagesTs` (as in a raw task). A video of which nothing is known is predicted all the same.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.parallel import process_map
from nnunetlike.data.films import require_films
from nnunetlike.data.imageio import DEFAULT_ENDING, format_of
from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.clinical_table import write_clinical_csv
from nnunetlike.evaluation.ventricle import Structures
from nnunetlike.inference.cases import PICTURES, InputCase
from nnunetlike.inference.export import companion
from nnunetlike.inference.settings import OverlayKind, PredictionSettings
from nnunetlike.inference.video_overlay import LabelledVideo, write_overlay

if TYPE_CHECKING:  # worker processes import this module, and do without torch
    from nnunetlike.inference.model_bundle import ModelBundle

CLINICAL = "clinical.csv"
SHOWN = 3
OVERLAY_FACTOR = 40
"""Memory that an overlay takes, per byte of its image unpacked."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictedVideo:
    """A video and the label file that was written for it."""

    case: InputCase
    label: Path

    @property
    def facts(self) -> VideoFacts:
        """What is known of it."""
        return self.case.facts or VideoFacts(patient=self.case.case_id, labelled_frames=())


def as_videos(
    cases: Sequence[InputCase], folder: Path, unit: Literal["mm", "px"]
) -> list[InputCase]:
    """Return cases with the facts of their sidecars, to be read as videos.

    Args:
        cases: as found in the folder.
        folder: of the images.
        unit: of the plans' spacing; in pixels, the spacing of files is not looked at.

    Raises:
        DataError: cases are pictures, or a sidecar does not describe a video.
    """
    flat = [p.name for case in cases for p in case.files.images if p.name.endswith(PICTURES)]
    if flat:
        more = f" and {len(flat) - SHOWN} more" if len(flat) > SHOWN else ""
        raise DataError(
            f"{folder}: {', '.join(flat[:SHOWN])}{more} are pictures, but this model predicts "
            f"videos: ID_0000{DEFAULT_ENDING} whose last axis is time. "
            "nnUNet_convert_png_video_task makes them of folders of frames"
        )
    found = [(case, _facts(case.case_id, folder)) for case in cases]
    unknown = [case.case_id for case, facts in found if facts and not facts.spacing_known]
    if unit == "mm" and unknown:
        logger.warning(
            "the model works in mm, but the spacing of %d video(s) is not known (%s, for example); "
            "what their files say is taken for mm",
            len(unknown),
            unknown[0],
        )
    return [_as_video(case, facts, unit) for case, facts in found]


def _facts(case_id: str, folder: Path) -> VideoFacts | None:
    folder = folder.resolve()
    beside = folder.parent / folder.name.replace("images", "cases", 1)
    for path in (folder / f"{case_id}.json", beside / f"{case_id}.json"):
        if path.is_file():
            return VideoFacts.load(path)
    return None


def _as_video(case: InputCase, facts: VideoFacts | None, unit: str) -> InputCase:
    in_mm = unit == "mm"
    stated = facts or VideoFacts(patient=case.case_id, labelled_frames=(), spacing_known=in_mm)
    read_as = replace(stated, spacing_known=in_mm)
    return replace(case, files=replace(case.files, video=read_as), facts=stated)


def require_video(bundle: ModelBundle, settings: PredictionSettings) -> None:
    """Do nothing if a model can do what is asked for.

    Raises:
        UsageError: it predicts images, and something is asked that can be had for videos only; or
            MP4 is, and PyAV is not installed.
    """
    options = {"--bidirectional": settings.bidirectional, "--overlay": settings.overlay}
    asked = [name for name, value in options.items() if value]
    if asked and bundle.video is None:
        raise UsageError(
            f"{' and '.join(asked)} can be had for videos only, and {bundle.folder} predicts "
            "images. Leave it out, or choose a model of videos with -m video2d"
        )
    if settings.overlay == "mp4":
        require_films("--overlay mp4")


def write_video_outputs(
    videos: Sequence[PredictedVideo], folder: Path, settings: PredictionSettings
) -> None:
    """Write overlays beside the label files, and `clinical.csv` where there is a left ventricle.

    Both are made of the label files, so of postprocessed labels.

    Args:
        videos: all whose label file exists, whenever it was written.
        folder: that of the predictions.
        settings: what to write, and by how many processes.

    Raises:
        DataError: a file cannot be read.
    """
    if settings.overlay is not None:
        _draw_overlays(videos, settings.overlay, settings)
    names = settings.label_names
    if names is None:
        logger.info(
            "dataset.json of the task is not here, so labels have no names and no %s is written",
            CLINICAL,
        )
    elif videos and Structures.of(names) is not None:
        write_clinical_csv(
            folder / CLINICAL,
            {video.case.case_id: video.label for video in videos},
            {video.case.case_id: video.facts for video in videos},
            names=names,
            processes=settings.export_processes,
        )


def _draw_overlays(
    videos: Sequence[PredictedVideo], kind: OverlayKind, settings: PredictionSettings
) -> None:
    todo = [video for video in videos if settings.overwrite or _is_old(video, kind)]
    process_map(
        partial(_draw, kind=kind, names=settings.label_names or {}), todo,
        processes=settings.export_processes, name=_name, title="overlays" if todo else "",
        cost=_memory,
    )  # fmt: skip


def _is_old(video: PredictedVideo, kind: OverlayKind) -> bool:
    """Tell whether an overlay is missing or older than its label file."""
    path = companion(video.label, f".{kind}")
    return not path.is_file() or path.stat().st_mtime_ns < video.label.stat().st_mtime_ns


def _draw(video: PredictedVideo, *, kind: OverlayKind, names: Mapping[int, str]) -> None:
    images = video.case.files.images
    image, geometry = format_of(images[0]).read(images)
    label, _ = format_of(video.label).read_label(video.label)
    spacing = geometry.spacing[1:] if video.facts.spacing_known else (1.0, 1.0)
    shown = LabelledVideo(
        image=image, label=label, spacing=spacing, facts=video.facts, names=names
    )  # fmt: skip
    write_overlay(shown, companion(video.label, f".{kind}"))


def _name(video: PredictedVideo) -> str:
    return video.case.case_id


def _memory(video: PredictedVideo) -> float:
    return OVERLAY_FACTOR * sum(map(unpacked_size, video.case.files.images))
