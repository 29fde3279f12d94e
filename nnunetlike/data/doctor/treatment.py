"""What is done with each case of a task that is mended, and which cases are left out.

What needs a decision (what replaces NaN voxels, which grid is right, what an undeclared label
means) is done only if `Orders` say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from nnunetlike.data.doctor.case import Examined
from nnunetlike.data.doctor.complaint import (
    ALL_ZERO,
    BETWEEN_VOXELS,
    FRACTIONAL,
    LABEL_NOT_FINITE,
    MISSING_IMAGE,
    MISSING_LABEL,
    NEAR_INTEGER,
    NO_FACTS,
    NOT_FINITE,
    OTHER_GRID,
    OTHER_SIZE,
    ROUNDED_GRID,
    UNDECLARED,
    UNREADABLE,
    VIDEO_FAULT,
    WRONG_CHANNELS,
    Complaint,
    Kind,
)
from nnunetlike.data.doctor.examination import Examination
from nnunetlike.data.doctor.layout import DATASET_JSON, TEST_IMAGES, CaseOnDisk, short
from nnunetlike.data.doctor.relabel import Relabelling, as_asked

BEYOND_REPAIR = (
    MISSING_IMAGE,
    MISSING_LABEL,
    UNREADABLE,
    LABEL_NOT_FINITE,
    FRACTIONAL,
    ALL_ZERO,
    WRONG_CHANNELS,
    NO_FACTS,
    VIDEO_FAULT,
)


@dataclass(frozen=True, kw_only=True)
class Orders:
    """Decisions that only the owner of the data can take; without them cases are left out."""

    fill: float | Literal["minimum"] | None = None
    """What replaces NaN and infinite voxels of images."""

    grid: Literal["copy", "resample"] | None = None
    """What to do with a label on another grid: take the image's header, or be resampled."""

    label_map: Mapping[int, int] | None = None
    """New values for old labels."""


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """What is to be done with one case."""

    case: CaseOnDisk
    left_out: tuple[str, ...] = ()
    """Why the case is not copied; empty if it is."""

    fill: frozenset[str] = frozenset()
    """Image files whose voxels are filled, below the task folder."""

    rewrite: tuple[Kind, ...] = ()
    """What is wrong with the label and will be mended; empty copies it as it is."""

    values: Mapping[int, int] | None = None
    """New values of the labels that this case has."""


def relabelling_for(examination: Examination, orders: Orders) -> Relabelling | None:
    """Return how labels are renumbered, if that is certain or asked for."""
    if orders.label_map is not None:
        return as_asked(examination.spec.labels.names, orders.label_map)
    proposed = examination.relabelling()
    return proposed if proposed is not None and proposed.certain else None


def treat(
    examined: Examined,
    examination: Examination,
    orders: Orders,
    relabelling: Relabelling | None,
) -> Treatment:
    """Return what is to be done with a case."""
    case = examined.case
    mine = [c for c in examination.complaints if c.case_id == case.case_id and _about(c, case)]
    label = "" if case.label is None else short(case.label)
    values = _own_values(examined, relabelling)
    rewrite = [c.kind for c in mine if c.file == label and _mendable(c.kind, orders)]
    if values:
        rewrite.append(UNDECLARED)
    fill = frozenset(c.file for c in mine if c.kind == NOT_FINITE and orders.fill is not None)
    known = set((relabelling or examination.spec.labels).names)
    reasons = [
        f"{c.kind.title} ({c.file})"
        for c in mine
        if _prevents(c, label, rewrite, fill)
        or (c.kind == UNDECLARED and not _all_known(examined, values, known))
    ]
    return Treatment(
        case=case,
        left_out=tuple(dict.fromkeys(reasons)),
        fill=fill,
        rewrite=tuple(dict.fromkeys(rewrite)),
        values=values,
    )


def _about(complaint: Complaint, case: CaseOnDisk) -> bool:
    """Return whether a complaint with the case's identifier concerns its training or test files."""
    return complaint.file == DATASET_JSON or complaint.file.startswith(TEST_IMAGES) == case.test


def _mendable(kind: Kind, orders: Orders) -> bool:
    """Return whether a label with this fault is rewritten."""
    if kind == OTHER_GRID:
        return orders.grid is not None
    if kind == OTHER_SIZE:
        return orders.grid == "resample"
    return kind in (NEAR_INTEGER, BETWEEN_VOXELS, ROUNDED_GRID)


def _prevents(
    complaint: Complaint, label: str, rewrite: Sequence[Kind], fill: frozenset[str]
) -> bool:
    """Return whether a complaint keeps its case out of the copy."""
    if complaint.kind in BEYOND_REPAIR:
        return True
    if complaint.kind == NOT_FINITE:
        return complaint.file not in fill
    if complaint.kind in (OTHER_SIZE, OTHER_GRID, BETWEEN_VOXELS):
        return complaint.file != label or complaint.kind not in rewrite
    return False


def _own_values(examined: Examined, relabelling: Relabelling | None) -> dict[int, int]:
    """Return the part of a relabelling that concerns the label of this case."""
    if relabelling is None or examined.histogram is None:
        return {}
    held = examined.histogram.voxels
    return {old: new for old, new in relabelling.values.items() if old in held}


def _all_known(examined: Examined, values: Mapping[int, int], known: set[int]) -> bool:
    held = () if examined.histogram is None else examined.histogram.voxels
    return {values.get(int(value), int(value)) for value in held} <= known
