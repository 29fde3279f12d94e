"""A whole raw task examined: every complaint at once. Nothing is written."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from nnunetlike.core.errors import DataError
from nnunetlike.core.parallel import Workers, process_map
from nnunetlike.core.serialization import load_json
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.doctor.case import Examined, examine_case, memory_needed
from nnunetlike.data.doctor.complaint import (
    ABSENT_LABEL,
    LEAVE_OUT,
    ORIENTATION,
    UNDECLARED,
    Complaint,
    of_severity,
)
from nnunetlike.data.doctor.layout import DATASET_JSON, CaseOnDisk, Layout, lay_out
from nnunetlike.data.doctor.relabel import Relabelling, propose
from nnunetlike.data.doctor.videos import VideoTask, torn_patients


@dataclass(frozen=True, kw_only=True)
class Examination:
    """A raw task, and everything that is wrong with it or deserves a look."""

    folder: Path
    spec: DatasetSpec
    layout: Layout
    cases: tuple[Examined, ...]
    complaints: tuple[Complaint, ...]

    @property
    def errors(self) -> tuple[Complaint, ...]:
        """Complaints that stop planning."""
        return of_severity(self.complaints, "error")

    @property
    def warnings(self) -> tuple[Complaint, ...]:
        """Complaints that do not."""
        return of_severity(self.complaints, "warning")

    @property
    def notes(self) -> tuple[Complaint, ...]:
        """What was accepted."""
        return of_severity(self.complaints, "note")

    @cached_property
    def voxels_by_label(self) -> Mapping[float, int]:
        """Voxels of all label files, by value."""
        voxels: Counter[float] = Counter()
        for examined in self.cases:
            if examined.histogram is not None:
                voxels.update(examined.histogram.voxels)
        return dict(voxels)

    def relabelling(self) -> Relabelling | None:
        """Return how the labels should be renumbered, or None if they are as they should be."""
        return _proposal(self.spec, self.cases)


def examine_task(folder: Path, *, processes: Workers) -> Examination:
    """Read every file of a raw task and return what is wrong with it.

    Hidden files are ignored. Whatever nnU-Net v1 accepts is no error.

    Args:
        folder: folder with dataset.json, imagesTr, labelsTr and imagesTs.
        processes: most worker processes, 0 or 1 to read in this one; or another executor.

    Raises:
        DataError: dataset.json is missing or cannot be understood, so nothing can be checked.
    """
    spec = DatasetSpec.load(folder / DATASET_JSON)
    content: dict[str, Any] = load_json(folder / DATASET_JSON)
    layout = lay_out(folder, spec, content)
    videos = VideoTask.of(folder, spec)
    cases: Sequence[Examined] = process_map(
        partial(
            examine_case,
            labels=tuple(spec.labels.names),
            channels=len(spec.modalities),
            video=videos,
        ),
        layout.cases,
        processes=processes,
        name=_case_id,
        title="verifying",
        cost=memory_needed,
    )
    complaints = [
        *layout.complaints,
        *_with_proposal(spec, cases),
        *_mixed_orientation(cases),
        *(torn_patients(videos, layout.cases) if videos is not None else ()),
    ]
    examination = Examination(
        folder=folder,
        spec=spec,
        layout=layout,
        cases=tuple(cases),
        complaints=tuple(complaints),
    )
    absent = tuple(_absent_labels(spec, examination.voxels_by_label))
    return replace(examination, complaints=(*complaints, *absent))


def _proposal(spec: DatasetSpec, cases: Sequence[Examined]) -> Relabelling | None:
    """Return how labels should be renumbered; files whose values are no integers do not count.

    Those of videos are as they should be, or dataset.json would have been refused.
    """
    if spec.video is not None:
        return None
    found = [
        frozenset(map(int, examined.histogram.voxels))
        for examined in cases
        if examined.histogram is not None
        and all(value.is_integer() for value in examined.histogram.voxels)
    ]
    return propose(spec.labels.names, found)


def _with_proposal(spec: DatasetSpec, cases: Sequence[Examined]) -> Iterator[Complaint]:
    """Yield the complaints of all cases, undeclared labels with the map that mends them."""
    mapping = _proposal(spec, cases)
    for examined in cases:
        for complaint in examined.complaints:
            if complaint.kind == UNDECLARED:
                yield replace(complaint, cure=_relabelling_cure(mapping))
            else:
                yield complaint


def _relabelling_cure(mapping: Relabelling | None) -> str:
    if mapping is None:
        return LEAVE_OUT
    said = ", ".join(f"{old} → {new}" for old, new in mapping.values.items())
    if mapping.certain:
        return f"{{fix}} writes {said}, in the label files and in dataset.json"
    names = ", ".join(f"{value} {name}" for value, name in mapping.names.items())
    return (
        f"if this is what they mean, {said} (labels then: {names}): {{fix}} {mapping.as_option()} "
        "(without --map the copy leaves these cases out)"
    )


def _mixed_orientation(cases: Sequence[Examined]) -> Iterator[Complaint]:
    by_code: defaultdict[str, list[CaseOnDisk]] = defaultdict(list)
    for examined in cases:
        if examined.orientation is not None:
            by_code[examined.orientation].append(examined.case)
    if len(by_code) > 1:
        listed = ", ".join(_with_example(code, members) for code, members in by_code.items())
        folders = {"imagesTs" if examined.case.test else "imagesTr" for examined in cases}
        yield Complaint(
            kind=ORIENTATION,
            file=" and ".join(sorted(folders)),
            found=listed,
            expected="one orientation",
        )


def _with_example(code: str, cases: Sequence[CaseOnDisk]) -> str:
    if len(cases) == 1:
        return f"{code} in 1 case ({cases[0].case_id})"
    return f"{code} in {len(cases)} cases ({cases[0].case_id}, …)"


def _absent_labels(spec: DatasetSpec, voxels: Mapping[float, int]) -> Iterator[Complaint]:
    for value, name in spec.labels.names.items():
        if not voxels.get(value) and value != spec.labels.ignore:
            yield Complaint(
                kind=ABSENT_LABEL,
                file=DATASET_JSON,
                found=f"label {value} ({name}) in no file",
                expected="it in some",
            )


def _case_id(case: CaseOnDisk) -> str:
    return case.case_id


def refuse(examinations: Sequence[Examination]) -> None:
    """Raise an error if a task has errors.

    Raises:
        DataError: names each task and how many errors it has.
    """
    faulty = [
        f"{found.folder.name} has {len(found.errors)} error{'s' * (len(found.errors) > 1)}"
        for found in examinations
        if found.errors
    ]
    if faulty:
        raise DataError(f"{' and '.join(faulty)}, listed above with what mends them")
