"""clinical.csv: one row a patient with volumes, ejection fraction and strain of label videos.

A patient of whom both apical views (2CH and 4CH) could be measured gets the biplane volumes, any
other those of a single plane; columns that end in a view's name hold what that view alone gives.
Several videos of the same view of a patient get a row each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from nnunetlike.core.errors import UsageError
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.parallel import process_map
from nnunetlike.core.serialization import atomic_path
from nnunetlike.data.imageio import format_of
from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.clinical import (
    BIPLANE_VIEWS,
    Cycle,
    Step,
    Volumes,
    area_length,
    biplane,
    longitudinal_strain,
    measure_cycle,
    single_plane,
)
from nnunetlike.evaluation.evaluator import MEMORY_FACTOR
from nnunetlike.evaluation.summary import mean_of_defined
from nnunetlike.evaluation.ventricle import Structures

COLUMNS = (
    "patient", "method", "edv_ml", "esv_ml", "ef", "ef_area_length", "gls", "ed", "es", "phases",
    "fps", "status", "failure",
)  # fmt: skip
VIEW_COLUMNS = ("case", "edv_ml", "esv_ml", "ef", "ef_area_length", "gls", "ed", "es")


@dataclass(frozen=True, kw_only=True)
class MeasuredVideo:
    """One video's heart cycle."""

    case: str
    facts: VideoFacts
    cycle: Cycle

    @property
    def view(self) -> str:
        """Name of the view in upper case; empty if not known."""
        return (self.facts.view or "").upper()


def write_clinical_csv(
    path: Path,
    labels: Mapping[str, Path],
    facts: Mapping[str, VideoFacts],
    *,
    names: Mapping[int, str],
    step: Step = "per_phase",
    processes: int = 0,
    title: str = "",
) -> pd.DataFrame:
    """Write one row a patient, whole or not at all, and return the table.

    `edv_ml` and `esv_ml` are empty where the spacing is not known; `ef`, `ef_area_length` and `gls`
    are in percent, empty where they could not be measured, and `failure` says why. `status` is
    `ok`, `partial` (a view failed, or the cavity touches the border of a frame) or `failed`. `ed`
    and `es` are frames counted from 0, of the first view named in a biplane row; `phases` says
    whether they were `given` or `found` as those of largest and smallest area.

    Args:
        path: the CSV file.
        labels: label video of each case.
        facts: of each case; a case without gets a patient of its own.
        names: of the labels, which tell LV, MYO and LA.
        step: height of the biplane method's discs.
        processes: most worker processes; 0 or 1 computes in this process.
        title: what the progress bar says; no bar when empty.

    Raises:
        UsageError: no label is a ventricle's cavity.
        DataError: a label cannot be read.
    """
    structures = Structures.of(names)
    if structures is None:
        raise UsageError(
            f"none of the labels {', '.join(names.values())} is the cavity of the left ventricle, "
            "so there is nothing to measure. Call it LV in dataset.json"
        )
    items = [
        (case, label, facts.get(case, VideoFacts(patient=case, labelled_frames=())))
        for case, label in sorted(labels.items())
    ]
    measure = partial(_measure, structures=structures)
    videos = process_map(
        measure, items, processes=processes, name=_case_name, title=title, cost=_memory
    )
    table = clinical_table(videos, step)
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f", lineterminator="\n")
    return table


def clinical_table(videos: Sequence[MeasuredVideo], step: Step = "per_phase") -> pd.DataFrame:
    """Return the rows, sorted by patient."""
    views = sorted({video.view for video in videos} - {""})
    columns = [*COLUMNS, *(f"{name}_{view.lower()}" for view in views for name in VIEW_COLUMNS)]
    rows = [_row(group, step) for group in _groups(videos)]
    table = pd.DataFrame(rows, columns=columns)
    whole = [name for name in columns if name.split("_")[0] in ("ed", "es")]
    return table.astype(dict.fromkeys(whole, "Int64"))


def _groups(videos: Sequence[MeasuredVideo]) -> list[list[MeasuredVideo]]:
    """Return the videos of each row: a patient's, or one where views are not told apart."""
    patients: dict[str, list[MeasuredVideo]] = {}
    for video in sorted(videos, key=lambda v: (v.facts.patient, v.view, v.case)):
        patients.setdefault(video.facts.patient, []).append(video)
    found: list[list[MeasuredVideo]] = []
    for group in patients.values():
        apart = len({video.view for video in group}) == len(group)
        found += [group] if apart else [[video] for video in group]
    return found


def _row(group: Sequence[MeasuredVideo], step: Step) -> dict[str, Any]:
    used, volumes = _volumes(group, step)
    notes = [f"{_where(v)}{text}" for v in group for text in _complaints(v.cycle)]
    if len({video.cycle.unit for video in group}) > 1:
        units = " and ".join(f"{video.view} in {video.cycle.unit}" for video in group)
        notes.append(f"{units} cannot be combined")
    first = used[0]
    row = {
        "patient": first.facts.patient,
        **_numbers(used, volumes),
        "ed": first.cycle.ed,
        "es": first.cycle.es,
        "phases": first.cycle.phases,
        "fps": first.facts.fps,
        "status": "failed" if volumes is None else "partial" if notes else "ok",
        "failure": "; ".join(notes),
    }
    for video in group:
        if video.view:
            row |= {f"{name}_{video.view.lower()}": v for name, v in _view_columns(video).items()}
    return row


def _volumes(
    group: Sequence[MeasuredVideo], step: Step
) -> tuple[Sequence[MeasuredVideo], Volumes | None]:
    """Return what a row's numbers come from, and its volumes: biplane, else of the first view."""
    whole = [video for video in group if not video.cycle.failure]
    both = [video for view in BIPLANE_VIEWS for video in whole if video.view == view]
    if len(both) == len(BIPLANE_VIEWS):
        found = biplane(both[0].cycle, both[1].cycle, step)
        if found is not None:
            return both, found
    if not whole:
        return group, None
    return whole[-1:], single_plane(whole[-1].cycle)


def _numbers(used: Sequence[MeasuredVideo], volumes: Volumes | None) -> dict[str, Any]:
    if volumes is None:
        return {"method": None}
    areas = [found.ef for video in used if (found := area_length(video.cycle))]
    return {
        "method": volumes.method,
        **_in_ml(volumes, used[0].cycle),
        "ef": volumes.ef,
        "ef_area_length": mean_of_defined(areas),
        "gls": mean_of_defined([longitudinal_strain(video.cycle) for video in used]),
    }


def _view_columns(video: MeasuredVideo) -> dict[str, Any]:
    """Return what a view alone gives."""
    volumes = single_plane(video.cycle)
    place = {"case": video.case, "ed": video.cycle.ed, "es": video.cycle.es}
    if volumes is None:
        return place
    area = area_length(video.cycle)
    return {
        **place,
        **_in_ml(volumes, video.cycle),
        "ef": volumes.ef,
        "ef_area_length": area.ef if area else math.nan,
        "gls": longitudinal_strain(video.cycle),
    }


def _in_ml(volumes: Volumes, cycle: Cycle) -> dict[str, float]:
    if cycle.unit != "mm":
        return {}
    return {"edv_ml": volumes.edv, "esv_ml": volumes.esv}


def _complaints(cycle: Cycle) -> tuple[str, ...]:
    return (cycle.failure,) if cycle.failure else cycle.notes


def _where(video: MeasuredVideo) -> str:
    return f"{video.view}: " if video.view else ""


def _measure(item: tuple[str, Path, VideoFacts], *, structures: Structures) -> MeasuredVideo:
    case, path, facts = item
    label, geometry = format_of(path).read_label(path)
    spacing = (geometry.spacing[1], geometry.spacing[2])
    cycle = measure_cycle(label, structures, spacing, facts)
    return MeasuredVideo(case=case, facts=facts, cycle=cycle)


def _case_name(item: tuple[str, Path, VideoFacts]) -> str:
    return item[0]


def _memory(item: tuple[str, Path, VideoFacts]) -> float:
    return MEMORY_FACTOR * unpacked_size(item[1])
