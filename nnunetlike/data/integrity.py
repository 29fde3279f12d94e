"""Everything that is wrong with a raw task, found before hours are spent on it.

All complaints are gathered and reported at once, each with its file, what was found and what was
expected. Nothing is written.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from nnunetlike.core.errors import DataError
from nnunetlike.core.folders import visible_files
from nnunetlike.core.parallel import process_map
from nnunetlike.core.serialization import load_json
from nnunetlike.core.typing import FloatArray
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.dataset import SUFFIX, DatasetSpec
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of

SHOWN = 50
"""Most complaints that an error spells out."""


@dataclass(frozen=True)
class IntegrityReport:
    """What a task without faults consists of, and what deserves a look."""

    training_cases: int
    test_cases: int
    voxels_by_label: Mapping[int, int]
    warnings: tuple[str, ...]

    def __str__(self) -> str:
        labels = ", ".join(f"{label}: {n}" for label, n in sorted(self.voxels_by_label.items()))
        head = (
            f"{self.training_cases} training and {self.test_cases} test cases are sound. "
            f"Voxels by label: {labels}"
        )
        return "\n".join([head, *(f"warning: {text}" for text in self.warnings)])


@dataclass(frozen=True)
class _Checked:
    """What was found in one case."""

    complaints: tuple[str, ...]
    voxels_by_label: Mapping[int, int]
    orientation: str | None
    """Where the axes x, y, z of the first image point, such as `LPS`."""


def verify_dataset_integrity(raw_task_folder: Path, *, processes: int) -> IntegrityReport:
    """Check a raw task and return a short report.

    Checked are dataset.json (entries, labels consecutive from 0, no case twice), that every file
    exists and none is left over, that images and label of a case lie on one grid (up to rounding,
    `numpy.isclose`), that no voxel is NaN or infinite, and that labels hold declared integers
    only. Hidden files are ignored. Images of different orientation are a warning.

    Args:
        raw_task_folder: folder with dataset.json, imagesTr, labelsTr and imagesTs.
        processes: most worker processes; 0 or 1 checks in this process.

    Raises:
        DataError: there are faults; the message lists them.
    """
    spec = DatasetSpec.load(raw_task_folder / "dataset.json")
    complaints = [*_wrong_description(spec), *_missing_folders(raw_task_folder, spec)]
    cases = [*_training_cases(raw_task_folder, spec), *_test_cases(raw_task_folder, spec)]
    complaints += _left_over_files(raw_task_folder, cases)
    checked = process_map(
        partial(_check_case, labels=tuple(spec.labels.names)),
        cases,
        processes=processes,
        name=_case_id,
        title="verifying",
    )
    complaints += [text for found in checked for text in found.complaints]
    if complaints:
        raise DataError(_message(raw_task_folder, complaints))
    voxels: Counter[int] = Counter()
    for found in checked:
        voxels.update(found.voxels_by_label)
    warnings = (
        *_mixed_orientation(cases, checked),
        *_absent_labels(spec, voxels),
        *_wrong_counts(raw_task_folder, spec),
    )
    return IntegrityReport(len(set(spec.training)), len(set(spec.test)), dict(voxels), warnings)


def _message(folder: Path, complaints: Sequence[str]) -> str:
    lines = [f"  {text}" for text in complaints[:SHOWN]]
    if len(complaints) > SHOWN:
        lines.append(f"  … and {len(complaints) - SHOWN} more")
    faults = "1 fault" if len(complaints) == 1 else f"{len(complaints)} faults"
    return "\n".join([f"{folder.name} has {faults}; mend the files or dataset.json:", *lines])


def _wrong_description(spec: DatasetSpec) -> Iterator[str]:
    for what, numbers in (("labels", spec.labels.names), ("modality", spec.modalities)):
        if sorted(numbers) != list(range(len(numbers))):
            yield (
                f"dataset.json: {what} must be numbered 0, 1, 2, … without gaps; found "
                f"{', '.join(map(str, sorted(numbers)))}"
            )
    if not spec.training:
        yield "dataset.json: 'training' lists no case"
    for what, ids in (("training", spec.training), ("test", spec.test)):
        for case_id, times in Counter(ids).items():
            if times > 1:
                yield f"dataset.json: '{what}' lists {case_id} {times} times; expected once"


def _missing_folders(folder: Path, spec: DatasetSpec) -> Iterator[str]:
    for name in ("imagesTr", "labelsTr", *(["imagesTs"] if spec.test else [])):
        if not (folder / name).is_dir():
            yield f"{name}: the folder is missing"


def _training_cases(folder: Path, spec: DatasetSpec) -> list[CaseFiles]:
    return [spec.training_case(folder, case_id) for case_id in dict.fromkeys(spec.training)]


def _test_cases(folder: Path, spec: DatasetSpec) -> list[CaseFiles]:
    return [
        CaseFiles(case_id=case_id, images=spec.image_files(folder / "imagesTs", case_id))
        for case_id in dict.fromkeys(spec.test)
    ]


def _left_over_files(folder: Path, cases: Iterable[CaseFiles]) -> Iterator[str]:
    """Yield a complaint for every file that no case of dataset.json asks for."""
    expected = {path for case in cases for path in (*case.images, case.label)}
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        if (folder / name).is_dir():
            for path in visible_files(folder / name, SUFFIX):
                if path not in expected:
                    yield f"{_short(path)}: no case of dataset.json asks for this file"


def _check_case(case: CaseFiles, *, labels: Sequence[int]) -> _Checked:
    complaints: list[str] = []
    grids: dict[Path, Geometry] = {}
    voxels: dict[int, int] = {}
    if case.label is not None:
        voxels = _check_label(case.label, labels, complaints, grids)
    for path in case.images:
        _check_image(path, complaints, grids)
    if grids:
        first = next(iter(grids))
        for path in list(grids)[1:]:
            complaints += _different_grid(path, grids[path], first, grids[first])
    codes = [orientation(grids[path].direction) for path in case.images if path in grids]
    return _Checked(tuple(complaints), voxels, codes[0] if codes else None)


def _check_label(
    path: Path, labels: Sequence[int], complaints: list[str], grids: dict[Path, Geometry]
) -> dict[int, int]:
    """Add what is wrong with a label map; return its voxels by label."""
    if not path.is_file():
        complaints.append(f"{_short(path)}: the label is missing")
        return {}
    try:
        label, grids[path] = format_of(path).read_label(path)
    except DataError as error:
        complaints.append(str(error).replace(str(path), _short(path)))
        return {}
    values, counts = np.unique(label, return_counts=True)
    voxels = {int(v): int(n) for v, n in zip(values, counts, strict=True)}
    unknown = {value: count for value, count in voxels.items() if value not in labels}
    if unknown:
        listed = ", ".join(f"{value} ({count} voxels)" for value, count in unknown.items())
        complaints.append(
            f"{_short(path)}: found the label {listed}; dataset.json declares "
            f"{', '.join(map(str, labels))}"
        )
    return voxels


def _check_image(path: Path, complaints: list[str], grids: dict[Path, Geometry]) -> None:
    """Add what is wrong with one channel."""
    if not path.is_file():
        complaints.append(f"{_short(path)}: the image is missing")
        return
    try:
        image, grids[path] = format_of(path).read([path])
        wrong = _not_finite(path, image)
    except DataError as error:
        complaints.append(str(error).replace(str(path), _short(path)))
        return
    if wrong:
        complaints.append(
            f"{_short(path)}: {wrong} of {image.size} voxels are NaN or infinite; expected none"
        )


def _not_finite(path: Path, image: FloatArray) -> int:
    """Return how many voxels of the file are NaN or infinite.

    ITK silently reads such voxels of a NIfTI file as 0, so floating-point files are looked at
    through nibabel.

    Raises:
        DataError: nibabel refuses the file.
    """
    voxels: Any = image
    if path.name.endswith((".nii", ".nii.gz")):
        try:
            stored: Any = nibabel.load(path)
        except (ImageFileError, HeaderDataError) as error:
            raise DataError(f"{path} cannot be read as NIfTI: {error}") from None
        if stored.get_data_dtype().kind != "f":
            return 0
        voxels = np.asanyarray(stored.dataobj)
    return int(voxels.size - np.isfinite(voxels).sum())


def _different_grid(path: Path, grid: Geometry, other: Path, expected: Geometry) -> Iterator[str]:
    """Yield one complaint that names everything in which two grids differ, or nothing."""
    differences = []
    if grid.shape != expected.shape:
        differences.append(
            f"{_times(grid.shape)} voxels (D × H × W), expected {_times(expected.shape)}"
        )
    for name in ("spacing", "origin", "direction"):
        found, wanted = getattr(grid, name), getattr(expected, name)
        if not np.isclose(found, wanted).all():
            differences.append(f"{name} {_numbers(found)}, expected {_numbers(wanted)}")
    if differences:
        yield (
            f"{_short(path)}: lies on another grid than {_short(other)}: found "
            f"{'; '.join(differences)}. Export both on one grid"
        )


def orientation(direction: Sequence[float]) -> str:
    """Return where the axes x, y, z of an image point, nearest letters (`LPS` is the identity).

    Args:
        direction: direction cosines as image files store them, row by row, world axes LPS.
    """
    cosines = np.reshape(direction, (3, 3))
    letters = ("LR", "PA", "SI")
    world = np.abs(cosines).argmax(axis=0)
    return "".join(
        letters[row][int(cosines[row, axis] < 0)] for axis, row in enumerate(world.tolist())
    )


def _mixed_orientation(cases: Sequence[CaseFiles], checked: Sequence[_Checked]) -> Iterator[str]:
    by_code: defaultdict[str, list[str]] = defaultdict(list)
    for case, found in zip(cases, checked, strict=True):
        if found.orientation is not None:
            by_code[found.orientation].append(case.case_id)
    if len(by_code) > 1:
        listed = "; ".join(
            f"{code}: {len(ids)} cases, {ids[0]} for example" for code, ids in by_code.items()
        )
        yield (
            f"the images are stored in different orientations ({listed}). Networks see them as "
            "stored; reorient them to one orientation"
        )


def _absent_labels(spec: DatasetSpec, voxels: Mapping[int, int]) -> Iterator[str]:
    for value, name in spec.labels.names.items():
        if not voxels.get(value):
            yield f"label {value} ({name}) is declared but occurs in no case"


def _wrong_counts(folder: Path, spec: DatasetSpec) -> Iterator[str]:
    content = load_json(folder / "dataset.json")
    for key, found in (("numTraining", len(spec.training)), ("numTest", len(spec.test))):
        if key in content and content[key] != found:
            yield f"dataset.json: {key} says {content[key]} but {found} cases are listed"


def _short(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _times(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"


def _case_id(case: CaseFiles) -> str:
    return case.case_id
