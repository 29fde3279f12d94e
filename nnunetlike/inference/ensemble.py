"""Label maps by the mean probabilities of several models, case by case, in parallel.

What each model kept of a case, `ID.npz` and `ID.pkl`, is all that is needed: no model, no image.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.intact import damage, unpacked_size
from nnunetlike.core.parallel import process_map
from nnunetlike.core.serialization import (
    atomic_path,
    load_json,
    load_pickle,
    save_json,
    save_pickle,
)
from nnunetlike.core.typing import JSON
from nnunetlike.data.imageio import ending_in
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import save_npz as write_npz
from nnunetlike.inference.export import Destination, write_label
from nnunetlike.inference.probabilities import KEY, kept_ids, mean_label
from nnunetlike.postprocessing.determine import apply_postprocessing, load_postprocessing

NOT_POSTPROCESSED = "not_postprocessed"
PROGRESS = "in_progress.json"
"""Says what an ensemble is made of; there until all of it is made."""

BYTES_PER_VOXEL = 30
"""Memory that averaging a case takes per voxel of its source, whatever the number of models."""


@dataclass(frozen=True)
class EnsembleCase:
    """A case and what each model kept of it."""

    case_id: str
    files: tuple[Path, ...]
    """`ID.npz` of every model; `ID.pkl` lies beside each."""


def ensemble_folders(
    folders: Sequence[Path],
    output: Path,
    *,
    postprocessing: Path | None = None,
    save_npz: bool = False,
    processes: int,
) -> list[Path]:
    """Average the probabilities of several folders of predictions and return the label files.

    Args:
        folders: of predictions of the same cases, each with `ID.npz` and `ID.pkl`.
        output: gets `ID.nii.gz` on the grid of the source images. With postprocessing these are
            postprocessed, and what they were before is in `not_postprocessed`.
        postprocessing: a postprocessing.json to apply; it is copied into `output`.
        save_npz: also keep the mean probabilities, beside the label maps they gave.
        processes: most worker processes; 0 or 1 computes in this process.

    Raises:
        UsageError: there are fewer than two folders, or `output` is one of them.
        DataError: a folder lacks cases that another has, all of which are named; or a file cannot
            be read, or the models do not fit together.
    """
    if len(folders) < 2:
        raise UsageError("an ensemble needs two folders of predictions or more")
    if output.resolve() in {folder.resolve() for folder in folders}:
        raise UsageError(f"{output} holds predictions to average; give the ensemble its own folder")
    ids = _common_ids(folders)
    cases = [EnsembleCase(i, tuple(folder / f"{i}.npz" for folder in folders)) for i in ids]
    rules = None if postprocessing is None else load_postprocessing(postprocessing)
    if postprocessing is not None:
        output.mkdir(parents=True, exist_ok=True)
        with atomic_path(output / "postprocessing.json") as temporary:
            shutil.copyfile(postprocessing, temporary)
    raw = output if rules is None else output / NOT_POSTPROCESSED
    written = ensemble_cases(
        cases, raw, ending=ending_in(folders[0]), save_npz=save_npz, processes=processes,
        postprocessing=rules, final=None if rules is None else output,
    )  # fmt: skip
    return written if rules is None else [output / path.name for path in written]


def ensemble_cases(
    cases: Sequence[EnsembleCase],
    output: Path,
    *,
    ending: str,
    save_npz: bool = False,
    postprocessing: JSON | None = None,
    final: Path | None = None,
    processes: int,
) -> list[Path]:
    """Write the label map of every case's mean probabilities and return the files.

    What was interrupted goes on where it was, if it is of the same files and settings; a run that
    came to its end is made again.

    Args:
        cases: to average.
        output: folder for the label maps.
        ending: of the label files.
        save_npz: also write `ID.npz` and `ID.pkl`, which v1 gives the properties of every model.
        postprocessing: content of a postprocessing.json.
        final: folder for the label maps after that.
        processes: most worker processes; 0 or 1 computes in this process.

    Raises:
        DataError: cases failed; all are named, and the others are written.
    """
    output.mkdir(parents=True, exist_ok=True)
    task = _Merge(output, ending, save_npz, postprocessing, final)
    made_of = _made_of(task, cases)
    journal = output / PROGRESS
    if damage(journal) or load_json(journal) != made_of:
        journal.unlink(missing_ok=True)
        for path in (path for case in cases for path in task.files(case.case_id)):
            path.unlink(missing_ok=True)
        save_json(made_of, journal)
    todo = [case for case in cases if any(damage(path) for path in task.files(case.case_id))]
    process_map(
        task, todo, processes=processes, name=_case_id, title="ensembling",
        cost=partial(_memory, keep=save_npz),
    )  # fmt: skip
    journal.unlink()
    return [task.label_file(case.case_id) for case in cases]


@dataclass(frozen=True)
class _Merge:
    """Averages one case; worker processes get it whole."""

    output: Path
    ending: str
    save_npz: bool
    postprocessing: JSON | None
    final: Path | None

    def __call__(self, case: EnsembleCase) -> None:
        """Write the files of a case; the label map after the others, the final one last."""
        properties = [_properties(path.with_suffix(".pkl")) for path in case.files]
        records = [CaseRecord.from_v1(found) for found in properties]
        _require_same_image(case, records)
        regions = properties[0].get("regions_class_order")
        record = records[0]
        label, mean = mean_label(
            case.files, record.crop_box, record.original_size, regions, keep=self.save_npz
        )
        path = self.label_file(case.case_id)
        if mean is not None:
            write_npz(self.output / f"{case.case_id}.npz", {KEY: mean})
            save_pickle(properties, self.output / f"{case.case_id}.pkl")
        write_label(label, record, Destination(path=path))
        if self.final is not None and self.postprocessing is not None:
            apply_postprocessing(path, self.final / path.name, self.postprocessing)

    def label_file(self, case_id: str) -> Path:
        """Return the label file of a case."""
        return self.output / f"{case_id}{self.ending}"

    def files(self, case_id: str) -> list[Path]:
        """Return all files of a case."""
        endings = (self.ending, ".npz", ".pkl") if self.save_npz else (self.ending,)
        files = [self.output / f"{case_id}{ending}" for ending in endings]
        return files if self.final is None else [*files, self.final / f"{case_id}{self.ending}"]


def _case_id(case: EnsembleCase) -> str:
    return case.case_id


def _memory(case: EnsembleCase, keep: bool) -> float:
    record = CaseRecord.from_v1(_properties(case.files[0].with_suffix(".pkl")))
    kept = unpacked_size(case.files[0]) if keep else 0
    return BYTES_PER_VOXEL * prod(record.original_size) + kept


def _properties(path: Path) -> dict[str, Any]:
    """Return the properties of a prediction; v1 keeps a list of them for an ensemble."""
    content = load_pickle(path)
    found = content[0] if isinstance(content, list) and content else content
    if not isinstance(found, dict) or "crop_bbox" not in found:
        raise DataError(f"{path} holds no properties of a prediction; predict the case again")
    return found


def _require_same_image(case: EnsembleCase, records: Sequence[CaseRecord]) -> None:
    """Do nothing if all models saw the same image.

    Raises:
        DataError: they did not, by its size, crop box or position.
    """
    first = records[0]
    for path, record in zip(case.files, records, strict=True):
        same_voxels = (record.original_size, record.crop_box) == (
            first.original_size, first.crop_box,
        )  # fmt: skip
        if not (same_voxels and np.allclose(_position(record), _position(first), atol=1e-3)):
            raise DataError(
                f"{case.case_id}: {path} was predicted from another image than {case.files[0]}: "
                f"{_grid(record)} against {_grid(first)}. Predict both from the same folder"
            )


def _position(record: CaseRecord) -> tuple[float, ...]:
    return (*record.itk_origin, *record.itk_spacing, *record.itk_direction)


def _grid(record: CaseRecord) -> str:
    return (
        f"size {record.original_size}, cropped to {record.crop_box}, origin {record.itk_origin}, "
        f"spacing {record.itk_spacing}, direction {record.itk_direction}"
    )


def _common_ids(folders: Sequence[Path]) -> list[str]:
    """Return the cases of the folders, which all of them must have."""
    found = {folder: set(kept_ids(folder)) for folder in folders}
    every = set().union(*found.values())
    if not every:
        raise DataError(
            f"no folder of {_listed(map(str, folders))} holds probabilities (ID.npz with ID.pkl); "
            "predict with --save_npz (-z)"
        )
    faults = [
        f"{folder} lacks {_listed(sorted(every - ids))}" for folder, ids in found.items()
        if every - ids
    ]  # fmt: skip
    if faults:
        raise DataError(
            "an ensemble needs the probabilities (ID.npz with ID.pkl) of every case from every "
            f"model: {'; '.join(faults)}. Predict them with --save_npz (-z)"
        )
    return sorted(every)


def _made_of(task: _Merge, cases: Sequence[EnsembleCase]) -> JSON:
    """Return what tells one ensemble from another; changed files count as others."""
    digest = hashlib.sha256(repr(task).encode())
    for path in (path for case in cases for path in case.files):
        status = path.stat()
        digest.update(f"{path.resolve()} {status.st_size} {status.st_mtime_ns}\n".encode())
    return {"made_of": digest.hexdigest()}


def _listed(names: Iterable[str], most: int = 10) -> str:
    every = list(names)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more" * (len(every) > most))
