"""CAMUS, in its NIfTI release, to a raw task of videos.

A patient has two views of one heart. Where there is a half sequence, from end-diastole (ED) to
end-systole (ES) or the other way round, it is the video and all its frames are labelled; where
there are only the pictures of ED and ES, they are a video of two frames, 0 and 1.

`Info_VIEW.cfg` says which frames are ED and ES, counted from 1. The left ventricle is larger in ED,
by definition; where the masks say the opposite of the file, **the masks win** and the case is named
in a note, since a swapped entry would make every ejection fraction negative. Frames per second come
from `FrameRate`; the third spacing of the files is no time.

Source: Leclerc et al., "Deep Learning for Segmentation Using an Open Large-Scale Dataset in 2D
Echocardiography", IEEE Transactions on Medical Imaging 38, 2019; subgroups and NIfTI files of its
release of 2023.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.dataset import SUFFIX
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.data.video import Supervision, VideoFacts
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

VIEWS = ("2CH", "4CH")
LABELS = ("LV", "MYO", "LA")
PATIENT = r"^(patient\d+)_"
SPLITS = {"train": "training", "val": "validation", "test": "testing"}
"""What the lists are called: `subgroup_training.txt` and so on."""

MEMORY_FACTOR = 8
"""Memory that a video takes, per byte of its files unpacked."""


@dataclass(frozen=True)
class _View:
    """One view of a patient."""

    folder: Path
    view: str
    split: str | None

    @property
    def case_id(self) -> str:
        """Identifier, patient and view."""
        return f"{self.folder.name}_{self.view}"

    def file(self, what: str) -> Path:
        """Return a file's path, `ED`, `ED_gt` or `half_sequence` for example."""
        return self.folder / f"{self.case_id}_{what}{SUFFIX}"

    @property
    def is_sequence(self) -> bool:
        """Whether there is a half sequence, of images or of masks."""
        return self.file("half_sequence").exists() or self.file("half_sequence_gt").exists()


def convert_camus(
    source: Path,
    name: str,
    *,
    split_folder: Path | None = None,
    supervision: Supervision | None = None,
    processes: int,
) -> ConvertedVideos:
    """Convert CAMUS into a raw task; testing patients go to `imagesTs`.

    Args:
        source: folder `database_nifti`, or one that holds it.
        name: of the raw task, `Task027_CAMUS`.
        split_folder: holds `subgroup_training.txt` and so on; None looks beside and above.
        supervision: what trains: `edes` for ED and ES alone; None for all labelled frames.
        processes: most worker processes; 0 or 1 converts in this process.

    Raises:
        DataError: there is no patient, a patient is in two lists, files are missing or do not
            belong together; all cases are named.
    """
    home = source / "database_nifti" if (source / "database_nifti").is_dir() else source
    patients = _patients(home)
    splits, notes = _splits(home, split_folder, [folder.name for folder in patients])
    views = [
        _View(folder, view, splits.get(folder.name))
        for folder in patients
        for view in VIEWS
        if any(folder.glob(f"{folder.name}_{view}_*"))
    ]
    task = VideoTask(
        name=name, labels=LABELS, group_regex=PATIENT, supervision=supervision,
        description="CAMUS: apical echocardiography of 500 patients in two views",
        licence="CC BY-NC-SA 4.0",
    )  # fmt: skip
    return write_task(
        task, views, _read, home=source, processes=processes, notes=notes, cost=_memory
    )


def _patients(home: Path) -> list[Path]:
    if not home.is_dir():
        raise DataError(f"{home} is not a folder")
    found = sorted(p for p in home.iterdir() if p.is_dir() and re.fullmatch(r"patient\d+", p.name))
    if not found:
        held = sorted(p.name for p in home.iterdir() if not p.name.startswith("."))[:SHOWN]
        raise DataError(
            f"{home} holds no folder patientXXXX; it holds {', '.join(held) or 'nothing'}. Give "
            "the folder database_nifti of the NIfTI release"
        )
    return found


def _splits(
    home: Path, given: Path | None, patients: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Return the split of each patient, and notes on lists that do not fit the folder."""
    above = (home, home.parent)
    places = [given] if given else [p for a in above for p in (a / "database_split", a)]
    folder = next((p for p in places if any(p.glob("subgroup_*.txt"))), None)
    if folder is None and given is not None:
        raise DataError(f"{given} holds no subgroup_training.txt, _validation.txt or _testing.txt")
    if folder is None:
        return {}, [
            "no lists subgroup_*.txt were found, so no official fold and no test patients "
            "(--split_folder)"
        ]
    found = one_split_per_patient(_lists(folder), folder)
    missing = sorted(set(found) - set(patients))
    unlisted = sorted(set(patients) - set(found))
    notes = [
        f"{len(names)} patient(s) {what}: {', '.join(names[:SHOWN])}"
        + (" …" if len(names) > SHOWN else "")
        for names, what in (
            (missing, f"of the lists in {folder} are not among the files"),
            (unlisted, "are in no list, and go to training"),
        )
        if names
    ]
    return found, notes


def _lists(folder: Path) -> dict[str, list[str]]:
    files = {split: folder / f"subgroup_{name}.txt" for split, name in SPLITS.items()}
    return {
        split: path.read_text(encoding="utf-8").split()
        for split, path in files.items()
        if path.exists()
    }


def _read(source: _View) -> Video:
    """Read one view of a patient."""
    info = _info(source.folder / f"Info_{source.view}.cfg")
    video = (_sequence if source.is_sequence else _two_frames)(source, info)
    require_labels(
        video.labels, len(LABELS), lambda frame: _label_file(source, frame, video.facts).name
    )
    return _checked_by_area(video)


def _label_file(source: _View, frame: int, facts: VideoFacts) -> Path:
    if source.is_sequence:
        return source.file("half_sequence_gt")
    return source.file("ED_gt" if frame == facts.ed else "ES_gt")


def _info(path: Path) -> dict[str, str]:
    """Return the entries of an `Info_VIEW.cfg`; none if it is missing."""
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text(encoding="utf-8").splitlines())
    return {key.strip(): value.strip() for key, _, value in lines if value.strip()}


def _facts(source: _View, info: Mapping[str, str]) -> VideoFacts:
    return VideoFacts(
        patient=source.folder.name,
        labelled_frames=(),
        view=source.view,
        fps=_number(info, "FrameRate", source),
        quality=info.get("ImageQuality"),
        ef=_number(info, "EF", source),
        split=source.split,
    )


def _number(info: Mapping[str, str], key: str, source: _View) -> float | None:
    try:
        return float(info[key]) if key in info else None
    except ValueError:
        raise DataError(
            f"{source.folder}/Info_{source.view}.cfg: {key} is {info[key]!r}, not a number"
        ) from None


def _sequence(source: _View, info: Mapping[str, str]) -> Video:
    """Read a half sequence; ED and ES are those of the file, or by area without one."""
    path, label_path = source.file("half_sequence"), source.file("half_sequence_gt")
    image, label, geometry = _pair(path, label_path)
    frames = image.shape[1]
    stated = _number(info, "NbFrame", source)
    if stated is not None and stated != frames:
        raise DataError(
            f"{path} has {frames} frames, but Info_{source.view}.cfg says NbFrame: {stated:g}. "
            "Download the patient again"
        )
    ends = [_number(info, key, source) for key in ("ED", "ES")]
    for key, end in zip(("ED", "ES"), ends, strict=True):
        if end is not None and not 1 <= end <= frames:
            raise DataError(
                f"Info_{source.view}.cfg says {key}: {end:g}, but {path} has the frames 1 to "
                f"{frames}. Correct the file"
            )
    ed, es = (None if end is None else int(end) - 1 for end in ends)
    return Video(
        image=image, labels=dict(enumerate(label)), geometry=geometry,
        facts=replace(_facts(source, info), ed=ed, es=es),
    )  # fmt: skip


def _two_frames(source: _View, info: Mapping[str, str]) -> Video:
    """Read the pictures of ED and ES as a video of two frames."""
    (ed, ed_label, geometry), (es, es_label, other) = (
        _pair(source.file(phase), source.file(f"{phase}_gt")) for phase in ("ED", "ES")
    )
    if geometry.shape != other.shape:
        raise DataError(
            f"{source.file('ED')} has {_pixels(geometry)} pixels but {source.file('ES')} "
            f"{_pixels(other)}. They cannot be frames of one video; download the patient again"
        )
    if len(ed_label) != 1:
        raise DataError(f"{source.file('ED')} has {len(ed_label)} frames; expected one picture")
    spacing = (1.0, *geometry.spacing[1:])
    return Video(
        image=np.concatenate([ed, es], axis=1),
        labels={0: ed_label[0], 1: es_label[0]},
        geometry=replace(geometry, shape=(2, *geometry.shape[1:]), spacing=spacing),
        facts=replace(_facts(source, info), ed=0, es=1),
    )


def _pair(path: Path, label_path: Path) -> tuple[FloatArray, LabelMap, Geometry]:
    """Return image (1, T, H, W), label (T, H, W) and their grid.

    Raises:
        DataError: a file is missing or cannot be read, or their sizes differ.
    """
    image, geometry = format_of(path).read([path])
    if not label_path.exists():
        raise DataError(
            f"{label_path.name} is missing, the masks of {path.name}. Download the patient again"
        )
    label, grid = format_of(label_path).read_label(label_path)
    if len(label) != image.shape[1]:
        raise DataError(
            f"{label_path.name} has {len(label)} frames, but {path.name} {image.shape[1]}. "
            "Download the patient again"
        )
    if grid.shape != geometry.shape:
        raise DataError(
            f"{label_path.name} has {_pixels(grid)} pixels, but {path.name} {_pixels(geometry)}. "
            "Download the patient again"
        )
    return image, label, geometry


def _pixels(geometry: Geometry) -> str:
    """Return the size in the plane, `W x H`."""
    return f"{geometry.shape[2]} x {geometry.shape[1]}"


def _checked_by_area(video: Video) -> Video:
    """Return the video with ED the frame of the larger cavity, and a note where this is news."""
    ed, es = video.facts.ed, video.facts.es
    if ed is None or es is None:
        ed, es = phases_by_area(video.labels)
        note = f"no Info file names ED and ES; the largest cavity is in frame {ed} (ED), the " \
            f"smallest in frame {es} (ES)"  # fmt: skip
    else:
        areas = [int((video.labels[t] == 1).sum()) for t in (ed, es)]
        if areas[0] >= areas[1]:
            return video
        note = (
            f"ED was to be frame {ed} and ES frame {es}, but the cavity has {areas[0]} pixels in "
            f"the one and {areas[1]} in the other: ED is frame {es}, ES frame {ed}"
        )
        ed, es = es, ed
    return replace(video, facts=replace(video.facts, ed=ed, es=es), notes=(note,))


def _memory(source: _View) -> float:
    files = source.folder.glob(f"{source.case_id}_*{SUFFIX}")
    return MEMORY_FACTOR * sum(unpacked_size(path) for path in files)
