"""Folders of frames as pictures to a raw task of videos.

`IMAGES/VIDEO/0.png, 1.png, …` are the frames of a video, in the order of their numbers, and
`MASKS/VIDEO/0.png` is the mask of a frame; a frame without one is unlabelled. The published
preprocessed CAMUS has this layout: `img`, `gt_lv` and a list of `train_data`, `val_data` and
`test_data`.

Source of that layout: the data sets published with Wang et al., "GDKVM", ICCV 2025,
arXiv:2512.10252.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.serialization import load_json
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of, split_ending
from nnunetlike.data.video import VideoFacts
from nnunetlike.dataset_conversion.pictures import Rule, relabelled
from nnunetlike.dataset_conversion.video_task import (
    SHOWN,
    ConvertedVideos,
    Video,
    VideoTask,
    one_split_per_patient,
    phases_by_area,
    require_labels,
    write_task,
)

PUBLISHED = ("img", "gt_lv")
"""Folders of the published layout."""

LISTS = {"train": "train_data", "val": "val_data", "test": "test_data"}
GROUP_BY = r"^(patient\d+)_"
VIEW = r"_([234]CH)$"
FEWEST = 2
"""Frames of a video."""

MEMORY_FACTOR = 12
"""Memory that a video takes, per byte of its pixels at 8 bits."""


@dataclass(frozen=True, kw_only=True)
class FrameFolders:
    """What to convert, and how."""

    images: Path
    masks: Path
    split: Path | None = None
    """JSON with the lists `train_data`, `val_data` and `test_data`."""

    name: str
    """Of the raw task, `Task029_Frames`."""

    labels: tuple[str, ...] = ("LV",)
    """Names of the mask values 1, 2, …."""

    rules: tuple[Rule, ...] = ()
    """What values of the masks become; empty: they are labels already."""

    group_by: str = GROUP_BY
    """Finds the patient (first group) in the name of a video, which is the patient otherwise."""

    is_echo: bool = False
    """Whether the frames of largest and smallest area of label 1 are ED and ES."""

    @classmethod
    def published(cls, folder: Path, **settings: Any) -> FrameFolders:
        """Return the published layout below `folder`: `img`, `gt_lv` and the one list in it.

        Raises:
            DataError: it is not there.
        """
        images, masks = (folder / name for name in PUBLISHED)
        lists = sorted(folder.glob("*.json")) if folder.is_dir() else []
        missing = [f"{path.name}/" for path in (images, masks) if not path.is_dir()]
        missing += [] if len(lists) == 1 else [f"one list *.json (found {len(lists)})"]
        if missing:
            raise DataError(
                f"{folder} lacks {', '.join(missing)}. Give the folder of the published layout, or "
                "name the parts with --images, --masks and --split"
            )
        return cls(images=images, masks=masks, split=lists[0], **settings)


@dataclass(frozen=True)
class _Frames:
    """A video: its folders, and what is known of it."""

    case_id: str
    images: Path
    masks: Path
    facts: VideoFacts


def convert_png_videos(task: FrameFolders, *, processes: int) -> ConvertedVideos:
    """Convert folders of frames into a raw task; videos of the list `test_data` go to `imagesTs`.

    Args:
        task: what to convert.
        processes: most worker processes; 0 or 1 converts in this process.

    Raises:
        UsageError: `group_by` is no expression with a group.
        DataError: a list is wrong, or a video is: one frame, a frame of another size or missing, a
            mask without frame, a value without label. All videos are named.
    """
    for folder in (task.images, task.masks):
        if not folder.is_dir():
            raise DataError(f"{folder} is not a folder")
    names = sorted(p.name for p in task.images.iterdir() if p.is_dir() and p.name[0] != ".")
    if not names:
        raise DataError(f"{task.images} holds no folder of frames, such as patient0001_4CH/0.png")
    _require_videos_of_masks(task, names)
    patients = {name: _patient(name, task.group_by) for name in names}
    splits, notes = _splits(task, patients)
    sources = [
        _Frames(name, task.images / name, task.masks / name, _facts(name, patients, splits))
        for name in names
    ]
    described = VideoTask(
        name=task.name, labels=task.labels, description="videos from folders of frames"
    )
    return write_task(
        described, sources, partial(_read, task=task), home=_common_parent(task),
        processes=processes, notes=notes, cost=_memory,
    )  # fmt: skip


def _common_parent(task: FrameFolders) -> Path:
    return task.images.parent if task.images.parent == task.masks.parent else task.images


def _require_videos_of_masks(task: FrameFolders, names: Sequence[str]) -> None:
    masks = {p.name for p in task.masks.iterdir() if p.is_dir() and p.name[0] != "."}
    if left := sorted(masks - set(names)):
        raise DataError(
            f"{len(left)} folder(s) of masks in {task.masks} have no frames in {task.images}: "
            f"{', '.join(left[:SHOWN])}"
        )


def _patient(name: str, group_by: str) -> str:
    try:
        match = re.search(group_by, name)
        return name if match is None else match[1]
    except (re.error, IndexError) as error:
        raise UsageError(
            f"--group_by {group_by!r} is no regular expression with a group ({error}); such as "
            f"'{GROUP_BY}'"
        ) from None


def _facts(name: str, patients: Mapping[str, str], splits: Mapping[str, str]) -> VideoFacts:
    view = re.search(VIEW, name)
    return VideoFacts(
        patient=patients[name],
        labelled_frames=(),
        view=view and view[1],
        spacing_known=False,
        split=splits.get(patients[name]),
    )


def _splits(task: FrameFolders, patients: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the split of each patient, and a note on videos that no list has."""
    if task.split is None:
        return {}, []
    content = load_json(task.split)
    if not isinstance(content, Mapping) or not set(LISTS.values()) & set(content):
        raise DataError(f"{task.split} has none of the lists {', '.join(LISTS.values())}")
    lists = {split: [str(n) for n in content.get(key) or []] for split, key in LISTS.items()}
    known = set(patients) | set(patients.values())
    unknown = [name for names in lists.values() for name in names if name not in known]
    if unknown:
        raise DataError(
            f"{task.split} lists {len(unknown)} video(s) that have no folder in {task.images}: "
            f"{', '.join(unknown[:SHOWN])}"
        )
    of_patients = {split: [patients.get(n, n) for n in names] for split, names in lists.items()}
    found = one_split_per_patient(of_patients, task.split)
    left = [name for name, patient in patients.items() if patient not in found]
    note = f"{len(left)} video(s) are in no list of {task.split.name}, and go to training: "
    return found, [note + ", ".join(left[:SHOWN])] if left else []


def _read(source: _Frames, *, task: FrameFolders) -> Video:
    """Read the frames and masks of a video."""
    frames = _numbered(source.images)
    _check_numbers(source, frames)
    masks = _numbered(source.masks) if source.masks.is_dir() else {}
    if not masks and source.facts.split != "test":
        raise DataError(f"no frame has a mask in {source.masks}, so it cannot train. Add masks, or "
                        "list it in test_data")  # fmt: skip
    if left := sorted(set(masks) - set(frames)):
        raise DataError(
            f"{masks[left[0]]} is the mask of a frame that does not exist; {source.images} has the "
            f"frames {min(frames)} to {max(frames)}"
        )
    image = _stacked(list(frames.values()))
    order = {number: t for t, number in enumerate(frames)}
    paths = {order[number]: path for number, path in masks.items()}
    labels = {t: _mask(path, image.shape[2:], task.rules) for t, path in paths.items()}
    _check_values(labels, paths, task)
    facts = source.facts
    if task.is_echo and labels:
        ed, es = phases_by_area(labels)
        facts = replace(facts, ed=ed, es=es)
    _, t, h, w = image.shape
    geometry = Geometry(shape=(t, h, w), spacing=(1.0, 1.0, 1.0))
    return Video(image=image, labels=labels, geometry=geometry, facts=facts)


def _numbered(folder: Path) -> dict[int, Path]:
    """Return the pictures of a folder by the number their names end in, ascending.

    Raises:
        DataError: a name has no number, or two have the same.
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()):
        stem, ending = split_ending(path.name)
        if path.name.startswith(".") or not path.is_file() or not ending:
            continue
        match = re.search(r"(\d+)$", stem)
        if match is None:
            raise DataError(f"{path}: the name of a frame must end in its number, such as 0.png")
        if int(match[1]) in found:
            raise DataError(f"{path} and {found[int(match[1])].name} are the same frame")
        found[int(match[1])] = path
    return dict(sorted(found.items()))


def _check_numbers(source: _Frames, frames: Mapping[int, Path]) -> None:
    """Refuse a video of fewer than two frames, and one whose numbers leave a gap."""
    if len(frames) < FEWEST:
        raise DataError(
            f"{source.images} has {len(frames)} frame(s); a video has at least {FEWEST}. Single "
            "pictures are converted by nnUNet_convert_png_task"
        )
    numbers = list(frames)
    step = min(np.diff(numbers))
    missing = sorted(set(range(numbers[0], numbers[-1], int(step))) - set(numbers))
    if missing:
        shown = ", ".join(map(str, missing[:SHOWN]))
        raise DataError(f"{source.images} lacks frame {shown} between frames {numbers[0]} and "
                        f"{numbers[-1]}. Copy it again")  # fmt: skip


def _stacked(paths: Sequence[Path]) -> FloatArray:
    """Return frames as one image (C, T, H, W).

    Raises:
        DataError: one cannot be read, or differs from the first in size or channels.
    """
    frames = [format_of(path).read([path])[0][:, 0] for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if frame.shape != frames[0].shape:
            raise DataError(
                f"{path} has {_in_words(frame)}, but {paths[0].name} {_in_words(frames[0])}; all "
                "frames of a video must be alike"
            )
    return np.stack(frames, axis=1)


def _in_words(frame: FloatArray) -> str:
    channels, height, width = frame.shape
    return f"{width} x {height} pixels in {channels} channel(s)"


def _mask(path: Path, size: tuple[int, ...], rules: Sequence[Rule]) -> LabelMap:
    label = format_of(path).read_label(path)[0][0]
    if label.shape != size:
        raise DataError(
            f"{path} has {label.shape[1]} x {label.shape[0]} pixels, but its frame {size[1]} x "
            f"{size[0]}"
        )
    as_they_are = (Rule(value, value, value) for value in np.unique(label).tolist())
    return relabelled(label, (*rules, *as_they_are))


def _check_values(
    labels: Mapping[int, LabelMap], paths: Mapping[int, Path], task: FrameFolders
) -> None:
    """Refuse mask values that are no label, naming the rule that would make them one."""
    try:
        require_labels(labels, len(task.labels), lambda t: str(paths[t]))
    except DataError as error:
        raise DataError(
            f"{error}; or say what the value means: --map 255=1 makes it label 1, --labels names "
            "more labels"
        ) from None


def _memory(source: _Frames) -> float:
    first = next((path for path in source.images.iterdir() if split_ending(path.name)[1]), None)
    if first is None:
        return 0.0
    return MEMORY_FACTOR * unpacked_size(first) * sum(1 for _ in source.images.iterdir())
