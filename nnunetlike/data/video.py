"""What is known of a video beside its frames: how fast, of whom, which frames are labelled.

A video is an image whose axis D is time. Frames are counted from 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import load_json

Supervision = Literal["edes", "all", "sparse"]
"""Labelled frames that train: end-diastole and end-systole alone, or all there are (`all` says that
every frame has a label, `sparse` that some have)."""


_NEEDED = (
    'The facts of a video are at least {"patient": "ID", "labelled_frames": [0, 17]}, frames '
    "counted from 0"
)
TEST_SIDECAR = "casesTs/{case}.json"
"""Where the facts of videos in imagesTs lie, if they are told; nothing depends on them."""


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """Facts of one video, `casesTr/ID.json`."""

    patient: str
    """What must not lie on both sides of a split."""

    labelled_frames: tuple[int, ...]
    """Frames with a label, ascending; the label map of all others holds the ignore label."""

    view: str | None = None
    """Such as 2CH or 4CH."""

    fps: float | None = None
    """Frames per second."""

    ed: int | None = None
    """Frame of end-diastole."""

    es: int | None = None
    """Frame of end-systole; it may come before `ed`."""

    quality: str | None = None
    ef: float | None = None
    """Ejection fraction in percent, as the data set states it."""

    spacing_known: bool = True
    """The spacing of the file is in mm; else distances are in pixels."""

    split: str | None = None
    """`train`, `val` or `test` in the data set's own lists."""

    def __post_init__(self) -> None:
        frames = sorted({_frame(t) for t in self.labelled_frames})
        values = {
            "patient": _name(self.patient),
            "labelled_frames": tuple(frames),
            "ed": None if self.ed is None else _frame(self.ed),
            "es": None if self.es is None else _frame(self.es),
            "fps": _finite(self.fps),
            "ef": _finite(self.ef),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if not isinstance(self.spacing_known, bool):
            raise TypeError(f"spacing_known is {self.spacing_known!r}, not true or false")

    def to_plain(self) -> dict[str, Any]:
        """Return the content of the file."""
        return {**asdict(self), "labelled_frames": list(self.labelled_frames)}

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> VideoFacts:
        """Return the facts that `to_plain` wrote; entries that nobody knows are passed over."""
        known = {field.name for field in fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})

    @classmethod
    def load(cls, path: Path) -> VideoFacts:
        """Return the facts of a file.

        Raises:
            DataError: it is missing, not JSON, or lacks `patient` or `labelled_frames`.
        """
        if not path.is_file():
            raise DataError(f"{path} does not exist. {_NEEDED}")
        content = load_json(path)
        try:
            return cls.from_plain(content)
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} does not describe a video ({error}). {_NEEDED}") from None

    def supervised(self, supervision: Supervision) -> VideoFacts:
        """Return the facts with those labelled frames only that are to train or to be measured."""
        if supervision != "edes":
            return self
        kept = tuple(t for t in self.labelled_frames if t in (self.ed, self.es))
        return replace(self, labelled_frames=kept)


def _frame(value: Any) -> int:
    """Return the number of a frame, if it is one."""
    if isinstance(value, (bool, str)) or int(value) != value:
        raise ValueError(f"{value!r} is no number of a frame")
    return int(value)


def _name(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value):
        raise ValueError(f"patient {value!r} is no name")
    return str(value)


def _finite(value: Any) -> float | None:
    """Return a number, or None for one that says nothing."""
    number = None if value is None else float(value)
    return number if number is not None and math.isfinite(number) else None


@dataclass(frozen=True, kw_only=True)
class VideoDeclaration:
    """The entry `video` of a dataset.json."""

    group_regex: str | None = None
    """Finds the patient in an identifier; None takes the sidecar's `patient`."""

    sidecar: str = "casesTr/{case}.json"
    """Path of a case's facts below the task's folder."""

    supervision: Supervision = "sparse"

    @classmethod
    def from_plain(cls, content: Any, source: Path) -> VideoDeclaration:
        """Return the declaration.

        Raises:
            DataError: it is no object, time is not the last axis, or an entry has a wrong value.
        """
        if not isinstance(content, Mapping):
            raise DataError(f"{source}: 'video' must be an object, {{\"time_axis\": -1}}")
        if content.get("time_axis", -1) != -1:
            raise DataError(
                f"{source}: video.time_axis is {content['time_axis']!r}, but only -1 is supported: "
                "a file's last axis (nibabel's order) is time"
            )
        supervision = content.get("supervision", "sparse")
        if supervision not in get_args(Supervision):
            raise DataError(
                f"{source}: video.supervision is {supervision!r}; use "
                f"{', '.join(get_args(Supervision))}"
            )
        return cls(
            group_regex=content.get("group_regex"),
            sidecar=str(content.get("sidecar", cls.sidecar)),
            supervision=supervision,
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the entry of a dataset.json."""
        return {"time_axis": -1, **asdict(self)}

    def path(self, folder: Path, case_id: str) -> Path:
        """Return the file of a case's facts below a task's folder."""
        return folder / self.sidecar.format(case=case_id)

    def facts(self, folder: Path, case_id: str) -> VideoFacts:
        """Return a case's facts, with the patient that `group_regex` finds in its identifier.

        Raises:
            DataError: the file is missing or wrong, nothing of it is to train, the expression is
                wrong, or it finds nothing.
        """
        facts = VideoFacts.load(self.path(folder, case_id))
        if facts.labelled_frames and not facts.supervised(self.supervision).labelled_frames:
            raise DataError(
                f"{case_id}: video.supervision is {self.supervision!r}, but neither ED "
                f"({facts.ed}) nor ES ({facts.es}) is among its labelled_frames. Correct them, "
                "or use 'sparse' in dataset.json"
            )
        if self.group_regex is None:
            return facts
        try:
            match = re.search(self.group_regex, case_id)
        except re.error as error:
            raise DataError(
                f"video.group_regex {self.group_regex!r} is no regular expression: {error}. "
                "Correct it in dataset.json"
            ) from None
        patient = match and match[1 if match.re.groups else 0]
        if not patient:
            raise DataError(
                f"{case_id}: video.group_regex {self.group_regex!r} finds no patient in it. "
                "Correct it in dataset.json, or remove it to take the sidecar's 'patient'"
            )
        return replace(facts, patient=patient)


def uniform_frame_indices(first: int, last: int, count: int, frames: int) -> tuple[int, ...]:
    """Return the frames of a clip, evenly spaced from `first` to `last`, both of them kept.

    `last` before `first` means that the clip runs over the video's end to its beginning, as if the
    heart beat on. The frames are distinct if there are at least `count` of them from `first` to
    `last`; of fewer, some come several times in a row.

    Args:
        first: frame the clip begins with, from 0.
        last: frame it ends with.
        count: frames of the clip; of a clip of 1, `first` is it.
        frames: of the video.

    Raises:
        DataError: the video has no such frame.

    Source: Wang, Sun, Guo, Wu and Qin, "GDKVM: Echocardiography Video Segmentation via
    Spatiotemporal Key-Value Memory with Gated Delta Rule", ICCV 2025, arXiv:2512.10252, where
    clips of 10 frames are taken so.
    """
    if not (0 <= first < frames and 0 <= last < frames):
        raise DataError(
            f"a clip from frame {first} to frame {last} does not lie in a video of {frames} frames "
            f"(0 to {frames - 1}). Correct ed and es in its file of facts"
        )
    end = last if last >= first else last + frames
    positions = np.rint(np.linspace(first, end, count)).astype(int) % frames
    return tuple(positions.tolist())
