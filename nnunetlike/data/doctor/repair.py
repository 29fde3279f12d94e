"""A mended copy of a raw task: exactly the repairs that cannot do harm, each one told.

The task itself is only read.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import SimpleITK as sitk

from nnunetlike.core.disk import require_space
from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.folders import atomic_folder
from nnunetlike.core.parallel import process_map
from nnunetlike.core.serialization import load_json, save_json
from nnunetlike.data.doctor.case import memory_needed
from nnunetlike.data.doctor.complaint import (
    DESCRIPTION,
    SURPLUS_CHANNEL,
    UNLISTED,
    UNLISTED_TEST,
)
from nnunetlike.data.doctor.examination import Examination
from nnunetlike.data.doctor.layout import (
    DATASET_JSON,
    IMAGES,
    LABELS,
    TEST_IMAGES,
    short,
)
from nnunetlike.data.doctor.mend import fill_image, mend_label
from nnunetlike.data.doctor.relabel import Relabelling
from nnunetlike.data.doctor.treatment import Orders, Treatment, relabelling_for, treat
from nnunetlike.data.imageio import split_ending
from nnunetlike.data.video import TEST_SIDECAR


@dataclass(frozen=True, kw_only=True)
class Repaired:
    """What a repair wrote."""

    folder: Path
    done: tuple[str, ...]
    """`file: what was done`, one for each change."""


def copy_folder(out: Path, task: str) -> Path:
    """Return the task folder to write: `out` if it is called like a task, else one within it.

    Raises:
        UsageError: the folder exists and is not empty.
    """
    target = out if re.fullmatch(r"(Task|Dataset)\d+_.+", out.name) else out / task
    for folder in {out, target}:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is not empty; give a new folder with --fix")
    return target


def repair_task(examination: Examination, out: Path, *, orders: Orders, processes: int) -> Repaired:
    """Write a mended copy of a raw task and return what was done.

    Args:
        examination: the task and what is wrong with it.
        out: new or empty folder; the copy itself if it is called `TaskXXX_Name`, else the copy
            is a folder of the task's name within it.
        orders: decisions about what cannot be mended unasked.
        processes: most worker processes; 0 or 1 works in this process.

    Raises:
        UsageError: the folder is not empty, or lies within the task.
        DataError: dataset.json must be edited first, or no training case is left.
        ResourceError: the disk is too small for the copy.
    """
    target = copy_folder(out.absolute(), examination.folder.name)
    _refuse_what_cannot_be_done(examination, target)
    relabelling = relabelling_for(examination, orders)
    treatments = [
        treat(examined, examination, orders, relabelling) for examined in examination.cases
    ]
    kept = [treatment for treatment in treatments if not treatment.left_out]
    done = [
        f"{treatment.case.case_id}: left out, {'; '.join(treatment.left_out)}"
        for treatment in treatments
        if treatment.left_out
    ]
    if all(treatment.case.test for treatment in kept):
        raise DataError(
            f"no training case of {examination.folder.name} can be mended unasked, so no copy is "
            "written. The report says which options decide what"
        )
    with atomic_folder(target) as folder:
        for name in (IMAGES, LABELS, TEST_IMAGES):
            (folder / name).mkdir()
        changes = process_map(
            partial(_write_case, folder=folder, orders=orders),
            kept,
            processes=processes,
            name=_case_id,
            title="copying",
            cost=_memory,
        )
        done += [text for texts in changes for text in texts]
        done += _copy_unlisted_tests(examination, folder)
        _copy_facts(examination, kept, folder)
        done += _write_description(examination, kept, relabelling, folder)
    return Repaired(folder=target, done=tuple(done))


def _refuse_what_cannot_be_done(examination: Examination, target: Path) -> None:
    source = examination.folder.resolve()
    if source in (target.resolve(), *target.resolve().parents):
        raise UsageError(f"{target} lies within the raw task, which is only read; choose another")
    wrong = [complaint for complaint in examination.complaints if complaint.kind == DESCRIPTION]
    if wrong:
        raise DataError(f"{wrong[0]}. Edit dataset.json first; this cannot be mended unasked")
    needed = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    require_space(
        target, needed, f"the mended copy of {source.name}", "give a folder on another disk"
    )


def _write_case(treatment: Treatment, *, folder: Path, orders: Orders) -> list[str]:
    """Copy the files of a case, mended where asked; return what was done."""
    case, done = treatment.case, []
    home = folder / (TEST_IMAGES if case.test else IMAGES)
    for channel, path in enumerate(case.images):
        assert path is not None, "cases with missing images are left out"
        target = home / f"{case.case_id}_{channel:04d}{split_ending(path.name)[1]}"
        if target.name != path.name:
            done.append(f"{short(path)}: named {target.name}")
        if short(path) in treatment.fill:
            done.append(fill_image(path, target, orders))
        else:
            _copy(path, target)
        _copy_spacing(path, case.case_id, home)
    if case.label is not None:
        target = folder / LABELS / f"{case.case_id}{split_ending(case.label.name)[1]}"
        if treatment.rewrite:
            done += mend_label(treatment, target, orders)
        else:
            _copy(case.label, target)
        _copy_spacing(case.label, case.case_id, folder / LABELS)
    return done


def _copy(path: Path, target: Path) -> None:
    """Copy an image; MetaImage with its voxels, which are another file."""
    if path.name.lower().endswith(".mhd"):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(target))
    else:
        shutil.copyfile(path, target)


def _copy_spacing(path: Path, case_id: str, home: Path) -> None:
    """Copy `ID.json`, which gives the spacing of TIFF, if there is one beside an image."""
    for stem in (split_ending(path.name)[0], case_id):
        if path.with_name(f"{stem}.json").is_file():
            shutil.copyfile(path.with_name(f"{stem}.json"), home / f"{stem}.json")


def _copy_facts(examination: Examination, kept: Sequence[Treatment], folder: Path) -> None:
    """Copy the facts of the videos that are kept; those of test videos if there are any."""
    video = examination.spec.video
    if video is None:
        return
    for case in (treatment.case for treatment in kept):
        there = video if not case.test else replace(video, sidecar=TEST_SIDECAR)
        source = there.path(examination.folder, case.case_id)
        if source.is_file():
            target = there.path(folder, case.case_id)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _copy_unlisted_tests(examination: Examination, folder: Path) -> Iterator[str]:
    """Copy images in imagesTs where dataset.json lists no test case; tell what is not copied."""
    for complaint in examination.complaints:
        if complaint.kind == UNLISTED_TEST:
            shutil.copyfile(examination.folder / complaint.file, folder / complaint.file)
        elif complaint.kind in (UNLISTED, SURPLUS_CHANNEL):
            yield f"{complaint.file}: not copied"


def _write_description(
    examination: Examination,
    kept: Sequence[Treatment],
    relabelling: Relabelling | None,
    folder: Path,
) -> Iterator[str]:
    """Write dataset.json for the cases that were copied; yield what differs from the old one."""
    spec = examination.spec
    old: dict[str, Any] = load_json(examination.folder / DATASET_JSON)
    training = [treatment.case.case_id for treatment in kept if not treatment.case.test]
    test = [treatment.case.case_id for treatment in kept if treatment.case.test]
    new = dict(old) | {"numTraining": len(training)}
    if "training" in old:
        new["training"] = [
            {
                "image": f"./{IMAGES}/{case}{spec.file_ending}",
                "label": f"./{LABELS}/{case}{spec.label_ending}",
            }
            for case in training
        ]
    if "test" in old:
        new["test"] = [f"./{TEST_IMAGES}/{case}{spec.file_ending}" for case in test]
    if "numTest" in old:
        new["numTest"] = len(test)
    if relabelling is not None:
        new["labels"] = _labels(old["labels"], relabelling)
    save_json(new, folder / DATASET_JSON)
    for key in ("labels", "numTraining", "numTest"):
        if key in old and old[key] != new[key]:
            yield f"{DATASET_JSON}: {key} was {old[key]}, is {new[key]}"
    for key in ("training", "test"):
        if len(old.get(key) or ()) != len(new.get(key) or ()):
            yield f"{DATASET_JSON}: {len(new[key])} of {len(old[key])} entries of {key!r} are left"


def _labels(old: Mapping[str, Any], relabelling: Relabelling) -> dict[str, Any]:
    """Return the labels as dataset.json writes them: value to name in v1, name to value in v2."""
    if all(str(key).lstrip("-").isdigit() for key in old):
        return {str(value): name for value, name in relabelling.names.items()}
    return {name: value for value, name in relabelling.names.items()}


def _memory(treatment: Treatment) -> float:
    return memory_needed(treatment.case)


def _case_id(treatment: Treatment) -> str:
    return treatment.case.case_id
