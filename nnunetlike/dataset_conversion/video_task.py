"""Videos to raw tasks: what the converters of all data sets of videos share.

A video becomes `imagesTr/ID_0000.nii.gz` (one file per channel, nibabel's order X, Y, T),
`labelsTr/ID.nii.gz`, where frames without a label hold the ignore label everywhere, and
`casesTr/ID.json`; what the data set's own lists call test goes to `imagesTs` and so on.
C channels, T time, H, W.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from nnunetlike.core.errors import DataError, NnunetlikeError, UsageError
from nnunetlike.core.folders import atomic_folder
from nnunetlike.core.parallel import named, outcomes_of, summed_up
from nnunetlike.core.paths import raw_data
from nnunetlike.core.serialization import atomic_path, save_json, write_text
from nnunetlike.core.typing import LabelMap
from nnunetlike.data.dataset import SUFFIX
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.data.video import Supervision, VideoDeclaration, VideoFacts

EXCLUDED = "excluded.csv"
CHANNELS = {1: ("US",), 3: ("R", "G", "B")}
SHOWN = 5
"""Names that a message shows."""

Array = npt.NDArray[Any]


class Source(Protocol):
    """What a video is made of; picklable."""

    @property
    def case_id(self) -> str:
        """Identifier of the case to be."""
        ...


S = TypeVar("S", bound=Source)


@dataclass(frozen=True, kw_only=True)
class VideoTask:
    """What all videos of a task have in common."""

    name: str
    """Of the raw task, `Task027_CAMUS`."""

    labels: tuple[str, ...]
    """Names of the labels 1, 2, …; the ignore label comes after them."""

    description: str
    licence: str = ""
    group_regex: str | None = None
    supervision: Supervision | None = None
    """None: `all` if every frame of every video has a label, else `sparse`."""

    @property
    def ignore(self) -> int:
        """Value of frames without label."""
        return len(self.labels) + 1


@dataclass(frozen=True, kw_only=True)
class Video:
    """A video that was read."""

    image: Array
    """(C, T, H, W)."""

    labels: Mapping[int, LabelMap]
    """Label (H, W) of each labelled frame; empty where there is none."""

    geometry: Geometry
    facts: VideoFacts
    notes: tuple[str, ...] = ()
    """What a person should know of it."""


@dataclass(frozen=True, kw_only=True)
class Converted:
    """What was written of one video."""

    case_id: str
    frames: int
    channels: int
    facts: VideoFacts
    notes: tuple[str, ...]

    @property
    def part(self) -> str:
        """`Ts` for what the data set's lists call test, else `Tr`."""
        return "Ts" if self.facts.split == "test" else "Tr"


@dataclass(frozen=True, kw_only=True)
class ConvertedVideos:
    """What a conversion wrote."""

    folder: Path
    videos: tuple[Converted, ...]
    supervision: Supervision
    excluded: Mapping[str, str]
    """Reason by video, as `excluded.csv` lists them."""

    notes: tuple[str, ...]
    """Of the data set as a whole, and then of single videos."""


def write_task(
    task: VideoTask,
    sources: Sequence[S],
    read: Callable[[S], Video],
    *,
    home: Path,
    processes: int,
    excluded: Mapping[str, str] | None = None,
    skip_damaged: bool = False,
    notes: Sequence[str] = (),
    cost: Callable[[S], float] | None = None,
) -> ConvertedVideos:
    """Convert videos into a raw task, which replaces one of the same name when it is complete.

    Args:
        task: what to write.
        sources: the videos, in the order of dataset.json.
        read: picklable; gives a video's content.
        home: folder that the sources lie in, which is only read.
        processes: most worker processes; 0 or 1 converts in this process.
        excluded: reason by video of those that were left out before.
        skip_damaged: leave out what cannot be read, too.
        notes: what a person should know of the data set.
        cost: memory that a video takes, in bytes.

    Raises:
        DataError: videos cannot be read (all are named), or none is left.
        UsageError: the sources are the raw task itself.
    """
    target = raw_data() / task.name
    if target.resolve() in (home.resolve(), *home.resolve().parents):
        raise UsageError(
            f"{home} would be replaced by its own conversion. Give another task number"
        )
    with atomic_folder(target) as folder:
        outcomes = outcomes_of(
            partial(_convert, read=read, task=task, folder=folder), sources, processes=processes,
            name=lambda source: source.case_id, title="converting", cost=cost,
        )  # fmt: skip
        names = [source.case_id for source in sources]
        damaged = _damaged(dict(zip(names, outcomes, strict=True)), skip_damaged)
        videos = tuple(found for found in outcomes if isinstance(found, Converted))
        found = ConvertedVideos(
            folder=target,
            videos=videos,
            supervision=task.supervision or _supervision(videos),
            excluded={**(excluded or {}), **damaged},
            notes=(*notes, *(f"{v.case_id}: {note}" for v in videos for note in v.notes)),
        )
        _complete(task, found, folder)
    return found


def _convert(source: S, *, read: Callable[[S], Video], task: VideoTask, folder: Path) -> Converted:
    """Read and write one video."""
    video = read(source)
    converted = Converted(
        case_id=source.case_id, channels=len(video.image), frames=video.image.shape[1],
        facts=replace(video.facts, labelled_frames=tuple(sorted(video.labels))),
        notes=video.notes,
    )  # fmt: skip
    part, case_id = converted.part, source.case_id
    for number, channel in enumerate(_compact(video.image)):
        path = folder / f"images{part}" / f"{case_id}_{number:04d}{SUFFIX}"
        _write_image(channel, video.geometry, path)
    if video.labels:
        label = np.full(video.image.shape[1:], task.ignore, np.uint8)
        for frame, mask in video.labels.items():
            label[frame] = mask
        path = folder / f"labels{part}" / f"{case_id}{SUFFIX}"
        path.parent.mkdir(exist_ok=True)
        format_of(path).write_label(label, video.geometry, path)
    save_json(converted.facts.to_plain(), folder / f"cases{part}" / f"{case_id}.json")
    return converted


def _compact(image: Array) -> Array:
    """Return an image in bytes if it holds nothing else, else in single precision."""
    is_bytes = image.min() >= 0 and image.max() <= 255 and np.array_equal(image, np.rint(image))
    return image.astype(np.uint8 if is_bytes else np.float32)


def _write_image(voxels: Array, geometry: Geometry, path: Path) -> None:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing(geometry.itk_spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    with atomic_path(path) as temporary:
        sitk.WriteImage(image, str(temporary), useCompression=True)


def _damaged(outcomes: Mapping[str, object], skip: bool) -> dict[str, str]:
    """Return the reasons of those that failed.

    Raises:
        NnunetlikeError: there are some, and they are not to be skipped.
    """
    errors = {name: o for name, o in outcomes.items() if isinstance(o, NnunetlikeError)}
    if not all(isinstance(error, DataError) for error in errors.values()):
        raise summed_up(errors, len(outcomes))
    if errors and not skip:
        lines = "\n".join(f"  {named(error, name)}" for name, error in errors.items())
        raise DataError(
            f"{len(errors)} of {len(outcomes)} videos cannot be converted, so no task was written:"
            f"\n{lines}"
        )
    return {name: str(error) for name, error in errors.items()}


def _supervision(videos: Sequence[Converted]) -> Supervision:
    complete = all(len(video.facts.labelled_frames) == video.frames for video in videos)
    return "all" if complete else "sparse"


def _complete(task: VideoTask, found: ConvertedVideos, folder: Path) -> None:
    """Check the videos as a whole; write dataset.json, and excluded.csv if there is any."""
    training = [video.case_id for video in found.videos if video.part == "Tr"]
    if not training:
        raise DataError(
            f"no video is left to train with: {len(found.videos)} for test, "
            f"{len(found.excluded)} excluded. {_reasons(found.excluded)}"
        )
    channels = {video.channels for video in found.videos}
    if len(channels) > 1:
        raise DataError(_mixture(found.videos))
    save_json(_description(task, found, channels.pop()), folder / "dataset.json")
    if found.excluded:
        text = io.StringIO()
        csv.writer(text).writerows([("video", "reason"), *sorted(found.excluded.items())])
        write_text(folder / EXCLUDED, text.getvalue())


def _reasons(excluded: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in list(excluded.items())[:SHOWN])


def _mixture(videos: Sequence[Converted]) -> str:
    grey = [video.case_id for video in videos if video.channels == 1]
    colour = [video.case_id for video in videos if video.channels != 1]
    return (
        f"{len(grey)} videos are grey ({grey[0]}, for example) and {len(colour)} in colour "
        f"({colour[0]}). Save all of them in one form"
    )


def _description(task: VideoTask, found: ConvertedVideos, channels: int) -> dict[str, object]:
    """Return the content of dataset.json."""
    training = [video.case_id for video in found.videos if video.part == "Tr"]
    testing = [video.case_id for video in found.videos if video.part == "Ts"]
    declaration = VideoDeclaration(group_regex=task.group_regex, supervision=found.supervision)
    labels = {name: value for value, name in enumerate(("background", *task.labels))}
    return {
        "name": task.name.partition("_")[2],
        "description": task.description,
        "licence": task.licence,
        "tensorImageSize": "3D",
        "modality": {str(i): name for i, name in enumerate(CHANNELS[channels])},
        "labels": {**labels, "ignore": task.ignore},
        "video": declaration.to_plain(),
        "numTraining": len(training),
        "numTest": len(testing),
        "training": [
            {"image": f"./imagesTr/{c}{SUFFIX}", "label": f"./labelsTr/{c}{SUFFIX}"}
            for c in training
        ],
        "test": [f"./imagesTs/{c}{SUFFIX}" for c in testing],
    }


def require_labels(
    labels: Mapping[int, LabelMap], allowed: int, where: Callable[[int], str]
) -> None:
    """Refuse label values above `allowed`.

    Args:
        labels: label (H, W) by frame.
        allowed: highest label.
        where: names the file of a frame.

    Raises:
        DataError: with the first frame and all of its values that are wrong.
    """
    for frame, label in sorted(labels.items()):
        wrong = [int(value) for value in np.unique(label) if not 0 <= value <= allowed]
        if wrong:
            raise DataError(
                f"frame {frame} ({where(frame)}) holds the label {', '.join(map(str, wrong))}, but "
                f"labels are 0 to {allowed}. Export the masks anew"
            )


def phases_by_area(labels: Mapping[int, LabelMap]) -> tuple[int, int]:
    """Return the frames (ED, ES) whose cavity, label 1, is largest and smallest.

    Of equal ones the earlier is ED and the later ES.

    Args:
        labels: label (H, W) by frame, not empty.
    """
    area = {frame: int((label == 1).sum()) for frame, label in labels.items()}
    return min(area, key=lambda t: (-area[t], t)), min(area, key=lambda t: (area[t], -t))


def one_split_per_patient(lists: Mapping[str, Sequence[str]], source: Path) -> dict[str, str]:
    """Return the split of each patient.

    Args:
        lists: patients by split.
        source: where the lists come from, for messages.

    Raises:
        DataError: a patient is in two lists.
    """
    found: dict[str, str] = {}
    twice: dict[str, list[str]] = {}
    for split, patients in lists.items():
        for patient in patients:
            if found.setdefault(patient, split) != split:
                twice.setdefault(patient, [found[patient]]).append(split)
    if twice:
        named = "; ".join(f"{p} in {' and '.join(s)}" for p, s in list(twice.items())[:SHOWN])
        raise DataError(
            f"{source}: {len(twice)} patient(s) are in two lists: {named}. A patient must be in "
            "one only, or the test is no test. Correct the lists"
        )
    return found
