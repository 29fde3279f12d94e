"""EchoNet-Dynamic to a raw task of videos.

Each video has two traced frames, end-diastole (ED) and end-systole (ES); in all others nothing is
known, so they hold the ignore label. A tracing is a list of lines across the cavity, of which the
first is the long axis and no chord. Videos have no pixel spacing.

Source: Ouyang et al., "Video-based AI for beat-to-beat assessment of cardiac function", Nature 580,
2020, and the reader published with it: polygons by `skimage.draw.polygon`, vertices rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from skimage.draw import polygon

from nnunetlike.core.errors import DataError
from nnunetlike.core.typing import LabelMap
from nnunetlike.data.films import read_film, require_films
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.video import VideoFacts
from nnunetlike.dataset_conversion.video_task import (
    SHOWN,
    ConvertedVideos,
    Video,
    VideoTask,
    one_split_per_patient,
    phases_by_area,
    write_task,
)

FILES, TRACINGS, VIDEOS = "FileList.csv", "VolumeTracings.csv", "Videos"
FILE_COLUMNS = ("FileName", "EF", "FPS", "NumberOfFrames", "Split")
TRACING_COLUMNS = ("FileName", "X1", "Y1", "X2", "Y2", "Frame")
COORDINATES = ["X1", "Y1", "X2", "Y2"]
SPLITS = {"TRAIN": "train", "VAL": "val", "TEST": "test"}
CHORDS = 3
"""Lines that a tracing needs: the long axis and two chords, which make an area."""

Lines = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Film:
    """A video and what the lists say of it."""

    case_id: str
    path: Path
    facts: VideoFacts
    frames: int
    tracings: Mapping[int, Lines]
    """Lines (N, 4) of x1, y1, x2, y2 by frame."""


def convert_echonet(
    source: Path, name: str, *, skip_damaged: bool = False, processes: int
) -> ConvertedVideos:
    """Convert EchoNet-Dynamic into a raw task; videos of the list TEST go to `imagesTs`.

    Args:
        source: folder with `FileList.csv`, `VolumeTracings.csv` and `Videos`.
        name: of the raw task, `Task028_EchoNet`.
        skip_damaged: leave out videos that cannot be decoded, and those with a tracing of a frame
            that they do not have; else they are errors.
        processes: most worker processes; 0 or 1 converts in this process.

    Raises:
        UsageError: PyAV is not installed.
        DataError: a list is missing or wrong, or videos are damaged; all are named.
    """
    require_films("nnUNet_convert_echonet_task")
    listed = _table(source / FILES, FILE_COLUMNS)
    tracings = _tracings(source / TRACINGS)
    films, excluded = _films(source, listed, tracings)
    task = VideoTask(
        name=name, labels=("LV",), supervision="edes",
        description="EchoNet-Dynamic: apical four-chamber echocardiography",
        licence="Stanford University research use agreement; not to be passed on",
    )  # fmt: skip
    return write_task(
        task, films, _read, home=source, processes=processes, excluded=excluded,
        skip_damaged=skip_damaged, cost=_memory,
    )  # fmt: skip


def _table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a list of the data set; file names lose their `.avi`.

    Raises:
        DataError: it is missing, is no table, or lacks columns.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist. Give the folder that holds {FILES}, {TRACINGS} "
                        f"and {VIDEOS}")  # fmt: skip
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a table ({error}). Download it again") from None
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise DataError(f"{path} lacks the column(s) {', '.join(missing)}; it has "
                        f"{', '.join(map(str, table.columns))}")  # fmt: skip
    return table.assign(FileName=table["FileName"].astype(str).str.removesuffix(".avi"))


def _tracings(path: Path) -> dict[str, dict[int, Lines]]:
    """Return the lines of each traced frame of each video, in the order of the file."""
    table = _table(path, TRACING_COLUMNS)
    found: dict[str, dict[int, Lines]] = {}
    for name, of_video in table.groupby("FileName", sort=False):
        found[str(name)] = {
            int(frame): of_video.loc[of_video["Frame"] == frame, COORDINATES].to_numpy(float)
            for frame in of_video["Frame"].unique()
        }
    return found


def _films(
    source: Path, listed: pd.DataFrame, tracings: Mapping[str, Mapping[int, Lines]]
) -> tuple[list[_Film], dict[str, str]]:
    """Return the videos to convert, and the reason for each that is left out."""
    splits = _splits(listed, source / FILES)
    excluded = {
        name: f"it is traced in {TRACINGS}, but not listed in {FILES}"
        for name in tracings
        if name not in splits
    }
    films = []
    for row in listed.drop_duplicates("FileName").to_dict("records"):
        name = str(row["FileName"])
        path, lines = source / VIDEOS / f"{name}.avi", tracings.get(name, {})
        if reason := _unusable(path, lines):
            excluded[name] = reason
        else:
            films.append(_film(row, path, lines, splits[name]))
    return films, excluded


def _splits(listed: pd.DataFrame, path: Path) -> dict[str, str]:
    known = listed["Split"].astype(str).str.upper().map(SPLITS)
    if known.isna().any():
        wrong = listed.loc[known.isna(), ["FileName", "Split"]].head(SHOWN).to_numpy().tolist()
        named = ", ".join(f"{split} of {name}" for name, split in wrong)
        raise DataError(f"{path}: Split must be TRAIN, VAL or TEST; found {named}")
    lists = {split: listed["FileName"][known == split].tolist() for split in SPLITS.values()}
    return one_split_per_patient(lists, path)


def _unusable(path: Path, lines: Mapping[int, Lines]) -> str | None:
    if not lines:
        return f"it has no tracing in {TRACINGS}"
    if not path.is_file():
        return f"it has no video {VIDEOS}/{path.name}"
    if len(lines) < 2:
        return f"only frame {next(iter(lines))} is traced, so ED or ES is missing"
    return None


def _film(row: Mapping[Any, Any], path: Path, lines: Mapping[int, Lines], split: str) -> _Film:
    try:
        frames, fps, ef = int(row["NumberOfFrames"]), float(row["FPS"]), float(row["EF"])
    except ValueError as error:
        raise DataError(f"{FILES}: the entry of {row['FileName']} has a wrong number ({error})") \
            from None  # fmt: skip
    facts = VideoFacts(
        patient=path.stem, labelled_frames=(), view="4CH", fps=fps, ef=ef, spacing_known=False,
        split=split,
    )  # fmt: skip
    return _Film(path.stem, path, facts, frames, lines)


def _read(source: _Film) -> Video:
    """Decode one video and draw its tracings."""
    frames = read_film(source.path)
    if len(frames) < source.frames:
        raise DataError(
            f"{source.path} ends after {len(frames)} frames, but {FILES} says {source.frames}. "
            "Copy or download it again"
        )
    beyond = [frame for frame in source.tracings if not 0 <= frame < len(frames)]
    if beyond:
        raise DataError(
            f"{TRACINGS} traces frame {beyond[0]}, but {source.path} has the frames 0 to "
            f"{len(frames) - 1}"
        )
    draw = partial(traced_mask, size=frames.shape[1:])
    labels = {frame: draw(lines) for frame, lines in source.tracings.items()}
    ed, es = phases_by_area(labels)
    t, h, w = frames.shape
    return Video(
        image=frames[None], labels=labels,
        geometry=Geometry(shape=(t, h, w), spacing=(1.0, 1.0, 1.0)),
        facts=VideoFacts.from_plain({**source.facts.to_plain(), "ed": ed, "es": es}),
    )  # fmt: skip


def traced_mask(lines: Lines, size: tuple[int, int]) -> LabelMap:
    """Return the cavity (H, W), 1 inside, that a tracing encloses.

    Args:
        lines: (N, 4) of x1, y1, x2, y2 in pixels: the long axis, and then the chords from one end
            of it to the other. The outline goes along their first points and back along the others.
        size: (H, W).

    Raises:
        DataError: there are fewer than two chords.
    """
    if len(lines) < CHORDS:
        raise DataError(f"a tracing in {TRACINGS} has {len(lines)} lines; it needs {CHORDS}")
    first, second = lines[1:, :2], lines[1:, 2:]
    x, y = np.rint(np.concatenate([first, second[::-1]])).astype(int).T
    mask = np.zeros(size, np.uint8)
    mask[polygon(y, x, size)] = 1
    return mask


def _memory(source: _Film) -> float:
    return 8.0 * source.frames * 112 * 112
