"""Ejection fractions of predicted videos against those of references, in percent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nnunetlike.core.typing import JSON
from nnunetlike.evaluation.agreement import agreement
from nnunetlike.evaluation.clinical import (
    BIPLANE_VIEWS,
    Cycle,
    Volumes,
    area_length,
    biplane,
    longitudinal_strain,
    single_plane,
)
from nnunetlike.evaluation.summary import mean_of_defined
from nnunetlike.evaluation.video_case import VideoScores


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """One predicted and one reference measurement: of a video, or of a patient's two views."""

    unit: str
    """Name of the case or patient."""

    predicted: Volumes | None
    reference: Volumes | None
    stated: float | None
    """Ejection fraction as the data set states it."""

    failure: str

    def to_plain(self) -> JSON:
        """Return the entry of the list."""
        return {
            "id": self.unit,
            "predicted": self.predicted.ef if self.predicted else None,
            "reference": self.reference.ef if self.reference else None,
            "stated": self.stated,
            "failure": self.failure or None,
        }


def clinical_block(videos: Sequence[VideoScores]) -> JSON:
    """Return how well ejection fractions agree, by method.

    The numbers on top are those of the biplane method where a patient has both views, else of the
    single plane; `methods` has all, `stated` compares with the data set's own ejection fraction.
    """
    pairs = {
        "single_plane_discs_20": [_of_video(video, "discs") for video in _measured(videos)],
        "area_length": [_of_video(video, "area_length") for video in _measured(videos)],
        "biplane_discs_20": _of_patients(_measured(videos)),
    }
    method = "biplane_discs_20" if pairs["biplane_discs_20"] else "single_plane_discs_20"
    chosen = pairs[method]
    return {
        "method": method,
        "unit": "percent",
        **_numbers(chosen),
        "stated": _stated(chosen),
        "gls": _strain(videos),
        "methods": {name: _numbers(found) for name, found in pairs.items()},
        "values": [pair.to_plain() for pair in chosen],
    }


def _measured(videos: Sequence[VideoScores]) -> list[VideoScores]:
    """Return the videos with heart cycles, sorted by case."""
    return sorted((v for v in videos if v.cycles), key=lambda v: v.files.case)


def _of_video(video: VideoScores, method: str) -> _Pair:
    ours, theirs = video.cycles or (Cycle(), Cycle())
    volumes = area_length if method == "area_length" else single_plane
    return _Pair(
        unit=video.files.case,
        predicted=volumes(ours),
        reference=volumes(theirs),
        stated=video.files.facts.ef,
        failure=_failures({"": (ours, theirs)}),
    )


def _of_patients(videos: Sequence[VideoScores]) -> list[_Pair]:
    """Return the pairs of patients of whom there is one video of each of the two views."""
    patients: dict[str, dict[str, list[VideoScores]]] = {}
    for video in videos:
        view = (video.files.facts.view or "").upper()
        patients.setdefault(video.files.facts.patient, {}).setdefault(view, []).append(video)
    found = []
    for patient, views in sorted(patients.items()):
        both = [views.get(view, []) for view in BIPLANE_VIEWS]
        if all(len(of_view) == 1 for of_view in both):
            found.append(_of_views(patient, [of_view[0] for of_view in both]))
    return found


def _of_views(patient: str, views: Sequence[VideoScores]) -> _Pair:
    cycles = {v.files.facts.view or "": v.cycles or (Cycle(), Cycle()) for v in views}
    ours, theirs = zip(*cycles.values(), strict=True)
    stated = [v.files.facts.ef for v in views if v.files.facts.ef is not None]
    return _Pair(
        unit=patient,
        predicted=biplane(*ours),
        reference=biplane(*theirs),
        stated=mean_of_defined(stated) if stated else None,
        failure=_failures(cycles),
    )


def _failures(cycles: Mapping[str, tuple[Cycle, Cycle]]) -> str:
    return "; ".join(
        f"{view} {side}: {cycle.failure}".strip()
        for view, both in cycles.items()
        for side, cycle in zip(("prediction", "reference"), both, strict=True)
        if cycle.failure
    )


def _numbers(pairs: Sequence[_Pair]) -> JSON:
    found = [(p.predicted.ef, p.reference.ef) for p in pairs if p.predicted and p.reference]
    return {**agreement(found).to_plain(), "n_failed": len(pairs) - len(found)}


def _stated(pairs: Sequence[_Pair]) -> JSON:
    known = [p for p in pairs if p.stated is not None]
    found = [(p.predicted.ef, p.stated) for p in known if p.predicted and p.stated is not None]
    return {**agreement(found).to_plain(), "n_failed": len(known) - len(found)}


def _strain(videos: Sequence[VideoScores]) -> JSON:
    both = [v.cycles for v in _measured(videos) if v.cycles]
    strains = [tuple(map(longitudinal_strain, cycles)) for cycles in both]
    found = [(ours, theirs) for ours, theirs in strains if ours == ours and theirs == theirs]
    return {**agreement(found).to_plain(), "n_failed": len(strains) - len(found)}
