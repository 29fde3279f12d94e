"""Which files belong to which case, and what dataset.json and the folders say differently."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from nnunetlike.core.folders import visible_files
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.doctor.complaint import (
    CHANNEL_IN_ID,
    DESCRIPTION,
    DUPLICATE,
    DUPLICATE_TEST,
    GAPPED_LABELS,
    MISSING_FOLDER,
    MISSING_IMAGE,
    MISSING_LABEL,
    NO_CHANNEL_NUMBER,
    SURPLUS_CHANNEL,
    UNLISTED,
    UNLISTED_TEST,
    WRONG_COUNT,
    Complaint,
    Kind,
)
from nnunetlike.data.imageio import format_of, split_ending

IMAGES, TEST_IMAGES, LABELS = "imagesTr", "imagesTs", "labelsTr"
DATASET_JSON = "dataset.json"


@dataclass(frozen=True, kw_only=True)
class CaseOnDisk:
    """The files of a case that exist, whatever they are called."""

    case_id: str
    """Without a channel number, even where dataset.json has one."""

    images: tuple[Path | None, ...]
    """One per channel; None where it is missing."""

    label: Path | None
    test: bool

    @property
    def files(self) -> Iterator[Path]:
        """All files that exist."""
        yield from (path for path in (*self.images, self.label) if path is not None)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The cases of a task with their files, and what is wrong with names and lists."""

    cases: tuple[CaseOnDisk, ...]
    complaints: tuple[Complaint, ...]
    channel_table: tuple[tuple[str, tuple[str, ...]], ...]
    """Cases with missing or surplus channels, and the channel numbers they have."""


def lay_out(folder: Path, spec: DatasetSpec, content: dict[str, Any]) -> Layout:
    """Return the cases of a raw task and every complaint about names and lists.

    Args:
        folder: the raw task.
        spec: its dataset.json, parsed.
        content: its dataset.json as it stands in the file.
    """
    complaints = [*_description(spec), *_wrong_counts(spec, content)]
    complaints += _missing_folders(folder, spec)
    files = _Files.of(folder, spec)
    cases = []
    for test, ids in ((False, spec.training), (True, spec.test)):
        for listed in dict.fromkeys(ids):
            case, found = _resolve(files, listed, test)
            cases.append(case)
            complaints += found
    complaints += _left_over(files, cases)
    return Layout(
        cases=tuple(cases),
        complaints=tuple(complaints),
        channel_table=tuple(_channel_table(complaints, files)),
    )


def short(path: Path) -> str:
    """Return a file's path below its task folder."""
    return f"{path.parent.name}/{path.name}"


@dataclass(frozen=True, kw_only=True)
class _Files:
    """What lies in the folders of a task."""

    folder: Path
    spec: DatasetSpec
    names: dict[str, frozenset[str]]
    """File names in each folder, without hidden ones."""

    spare: dict[str, frozenset[str]]
    """Those that dataset.json does not ask for."""

    @classmethod
    def of(cls, folder: Path, spec: DatasetSpec) -> _Files:
        """Return what lies in the folders of the task."""
        names = {name: _names(folder / name) for name in (IMAGES, LABELS, TEST_IMAGES)}
        wanted = {
            LABELS: {f"{case}{spec.label_ending}" for case in spec.training},
            IMAGES: _image_names(spec, folder / IMAGES, spec.training),
            TEST_IMAGES: _image_names(spec, folder / TEST_IMAGES, spec.test),
        }
        spare = {name: found - wanted[name] for name, found in names.items()}
        return cls(folder=folder, spec=spec, names=names, spare=spare)

    def holds(self, path: Path) -> bool:
        """Return whether a file exists in one of the folders."""
        return path.name in self.names[path.parent.name]

    def similar(self, path: Path) -> str:
        """Return in words which files that nobody asks for are called like a missing one."""
        wanted = split_ending(path.name)[0]
        stems = {split_ending(name)[0]: name for name in sorted(self.spare[path.parent.name])}
        of_the_case = [stem for stem in stems if _numbers(stem) <= _numbers(wanted)]
        close = get_close_matches(wanted, of_the_case, cutoff=0.8)
        found = [stems[stem] for stem in close]
        return f" (of similar name: {', '.join(found)})" if found else ""


def _numbers(stem: str) -> set[int]:
    """Return the numbers in a name that tell its case from others."""
    return {int(digits) for digits in re.findall(r"\d+", stem)} - {0}


def _names(folder: Path) -> frozenset[str]:
    if not folder.is_dir():
        return frozenset()
    return frozenset(path.name for path in visible_files(folder, ""))


def _image_names(spec: DatasetSpec, home: Path, ids: Iterable[str]) -> set[str]:
    return {path.name for case_id in ids for path in spec.image_files(home, case_id)}


def _description(spec: DatasetSpec) -> Iterator[Complaint]:
    for kind, what, numbers in (
        (GAPPED_LABELS, "labels", spec.labels.names),
        (DESCRIPTION, "modality", spec.modalities),
    ):
        if sorted(numbers) != list(range(len(numbers))):
            yield Complaint(
                kind=kind,
                file=DATASET_JSON,
                found=f"{what} numbered {_listed(sorted(numbers))}",
                expected=f"{_listed(range(len(numbers)))}, without gaps",
            )
    if not spec.training:
        yield Complaint(
            kind=DESCRIPTION,
            file=DATASET_JSON,
            found="no case under 'training'",
            expected="at least one",
        )
    for kind, what, ids in (
        (DUPLICATE, "training", spec.training),
        (DUPLICATE_TEST, "test", spec.test),
    ):
        for case_id, times in Counter(ids).items():
            if times > 1:
                yield Complaint(
                    kind=kind,
                    file=DATASET_JSON,
                    case_id=case_id,
                    found=f"{case_id} {times} times under {what!r}",
                    expected="once",
                )


def _wrong_counts(spec: DatasetSpec, content: dict[str, Any]) -> Iterator[Complaint]:
    for key, cases in (("numTraining", spec.training), ("numTest", spec.test)):
        if key in content and content[key] != len(cases):
            yield Complaint(
                kind=WRONG_COUNT,
                file=DATASET_JSON,
                found=f"{key} {content[key]}",
                expected=f"{len(cases)}, the number of cases listed",
            )


def _missing_folders(folder: Path, spec: DatasetSpec) -> Iterator[Complaint]:
    for name in (IMAGES, LABELS, *([TEST_IMAGES] if spec.test else [])):
        if not (folder / name).is_dir():
            yield Complaint(
                kind=MISSING_FOLDER, file=name, found="no such folder", expected="a folder"
            )


def _resolve(files: _Files, listed: str, test: bool) -> tuple[CaseOnDisk, list[Complaint]]:
    """Return a case with its files, and complaints about their names."""
    home = files.folder / (TEST_IMAGES if test else IMAGES)
    case_id, complaints = _without_channel(files, home, listed)
    images, wrong = _images(files, home, case_id)
    complaints += wrong
    label = None
    if not test:
        wanted = files.folder / LABELS / f"{case_id}{files.spec.label_ending}"
        as_listed = wanted.with_name(f"{listed}{files.spec.label_ending}")
        label = next(filter(files.holds, (wanted, as_listed)), None)
        if label is None:
            complaints.append(_missing(MISSING_LABEL, wanted, case_id, files))
    return CaseOnDisk(case_id=case_id, images=tuple(images), label=label, test=test), complaints


def _images(files: _Files, home: Path, case_id: str) -> tuple[list[Path | None], list[Complaint]]:
    """Return the images of a case, None where one is missing, and complaints about them."""
    wanted = files.spec.image_files(home, case_id)
    bare = home / f"{case_id}{files.spec.file_ending}"
    one_file = len(wanted) == 1 or format_of(bare).multichannel
    if one_file and files.holds(bare) and not any(map(files.holds, wanted)):
        complaint = Complaint(
            kind=NO_CHANNEL_NUMBER,
            file=short(bare),
            case_id=case_id,
            found="no channel number",
            expected=wanted[0].name,
        )
        return [bare], [complaint]
    images = [path if files.holds(path) else None for path in wanted]
    missing = [
        _missing(MISSING_IMAGE, path, case_id, files) for path in wanted if not files.holds(path)
    ]
    return images, missing


def _without_channel(files: _Files, home: Path, listed: str) -> tuple[str, list[Complaint]]:
    """Return the identifier of a case that dataset.json may list as `liver_3_0000`."""
    match = re.fullmatch(r"(.+)_\d{4}", listed)
    if match is None or any(map(files.holds, files.spec.image_files(home, listed))):
        return listed, []
    if not any(map(files.holds, files.spec.image_files(home, match[1]))):
        return listed, []
    complaint = Complaint(
        kind=CHANNEL_IN_ID,
        file=DATASET_JSON,
        case_id=match[1],
        found=f"the case {listed}",
        expected=match[1],
    )
    return match[1], [complaint]


def _missing(kind: Kind, path: Path, case_id: str, files: _Files) -> Complaint:
    return Complaint(
        kind=kind,
        file=short(path),
        case_id=case_id,
        found=f"no file{files.similar(path)}",
        expected="one",
    )


def _left_over(files: _Files, cases: Sequence[CaseOnDisk]) -> Iterator[Complaint]:
    """Yield a complaint for every file that no case of dataset.json asks for."""
    spec, expected = files.spec, {path for case in cases for path in case.files}
    ids = {case.case_id for case in cases}
    for home, names in files.names.items():
        ending = spec.label_ending if home == LABELS else spec.file_ending
        for name in sorted(names):
            path = files.folder / home / name
            if not name.endswith(ending) or path in expected:
                continue
            match = re.fullmatch(r"(.+)_(\d{4})", name.removesuffix(ending))
            if home == TEST_IMAGES and not spec.test:
                yield _unlisted(UNLISTED_TEST, path)
            elif home != LABELS and match is not None and match[1] in ids:
                yield Complaint(
                    kind=SURPLUS_CHANNEL,
                    file=short(path),
                    case_id=match[1],
                    found=f"channel {int(match[2])}",
                    expected=f"channels {_listed(spec.modalities)} only",
                )
            else:
                yield _unlisted(UNLISTED, path)


def _unlisted(kind: Kind, path: Path) -> Complaint:
    return Complaint(
        kind=kind, file=short(path), found="a file of no case", expected="files of cases only"
    )


def _channel_table(
    complaints: Iterable[Complaint], files: _Files
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each case that lacks channels or has too many, with the numbers of those it has."""
    concerned = {
        (complaint.file.partition("/")[0], complaint.case_id)
        for complaint in complaints
        if complaint.kind in (MISSING_IMAGE, SURPLUS_CHANNEL)
    }
    ending = re.escape(files.spec.file_ending)
    for home, case_id in sorted(concerned, key=str):
        pattern = re.compile(rf"{re.escape(str(case_id))}_(\d{{4}}){ending}")
        found = map(pattern.fullmatch, files.names[home])
        yield f"{home}/{case_id}", tuple(sorted(match[1] for match in found if match))


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))
