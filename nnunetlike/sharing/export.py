"""Packing trained models into a zip that this package and nnU-Net v1 install.

Only what prediction needs is taken: plans, the chosen checkpoints with their pickles, and the
postprocessing. Of ensembles among the models, their postprocessing.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nnunetlike.core.disk import require_space
from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.paths import fold_name
from nnunetlike.core.serialization import atomic_path
from nnunetlike.sharing.contents import check_file
from nnunetlike.sharing.layout import (
    CASCADE,
    ENSEMBLES,
    MANIFEST,
    PLANS,
    POSTPROCESSING,
    Place,
    folds_of,
    place_of,
)
from nnunetlike.sharing.manifest import CHUNK, FileFacts, Manifest, SharedModel

LICENCE_LINE = 100
REPORTS = ("debug.json", "progress.png", "network_architecture.pdf")
"""What v1 packs beside a checkpoint and prediction does not need. Holds paths of the machine."""

EARLIEST = 315532800
"""1980-01-01, before which a zip has no time."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which models to pack, and what of them."""

    places: tuple[Place, ...]
    folds: tuple[int | str, ...]
    checkpoints: tuple[str, ...]
    """Without `.model`."""

    reports: bool = False
    """Also what v1 packs and prediction does not need."""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """The files to pack, and what is not there."""

    task: str
    files: tuple[str, ...]
    """Paths below the results, which are those within the zip."""

    absent: tuple[str, ...]
    """What was wanted and does not exist: models, folds, checkpoints."""

    notes: tuple[str, ...]
    """What whoever installs the zip will miss."""

    @property
    def models(self) -> tuple[SharedModel, ...]:
        """The models with a checkpoint, for the manifest."""
        places = sorted({p for name in self.files if (p := place_of(name)) is not None})
        return tuple(
            SharedModel(place.configuration, place.name, folds_of(place, self.files))
            for place in places
            if not place.is_ensemble
        )


def collect(results: Path, wanted: Wanted) -> Collection:
    """Return the files of the models that are there.

    Args:
        results: `RESULTS_FOLDER/nnUNet`.
        wanted: models of one task.

    Raises:
        DataError: there is no checkpoint at all, or a model has no plans.
    """
    files: list[str] = []
    absent: list[str] = []
    notes: list[str] = []
    for place in wanted.places:
        there, lacking = _files_of(results, place, wanted)
        absent += lacking
        files += there
        if there and f"{place}/{POSTPROCESSING}" not in there:
            notes.append(
                f"{place} has no {POSTPROCESSING}; nnUNet_determine_postprocessing makes it"
            )
    task = wanted.places[0].task
    if not files:
        raise DataError(f"nothing of {task} can be exported. Absent: {', '.join(absent)}")
    packed = {found for name in files if (found := place_of(name)) is not None}
    configurations = {model.configuration for model in packed}
    if CASCADE in configurations and "3d_lowres" not in configurations:
        notes.append(f"{CASCADE} predicts from 3d_lowres, which is not among the models")
    files += _ensembles(results, task, packed)
    return Collection(task=task, files=tuple(files), absent=tuple(absent), notes=tuple(notes))


def _files_of(results: Path, place: Place, wanted: Wanted) -> tuple[list[str], list[str]]:
    """Return the files of one model and what of it is absent."""
    if not place.folder(results).is_dir():
        return [], [str(place)]
    checkpoints: list[str] = []
    absent: list[str] = []
    for fold in wanted.folds:
        found = _fold(results, place.path / fold_name(fold), wanted)
        checkpoints += found
        if not found:
            names = " or ".join(f"{name}.model" for name in wanted.checkpoints)
            absent.append(f"{place.path / fold_name(fold)} ({names})")
    if not checkpoints:
        return [], absent
    if not (results / place.path / PLANS).is_file():
        raise DataError(
            f"{results / place.path} lacks {PLANS}, which prediction needs. Copy the task's plans "
            "pickle there under that name"
        )
    whole = [
        str(place.path / name)
        for name in (PLANS, POSTPROCESSING)
        if (results / place.path / name).is_file()
    ]
    return whole + checkpoints, absent


def _fold(results: Path, fold: PurePosixPath, wanted: Wanted) -> list[str]:
    """Return the files of one fold; none where every wanted checkpoint is absent."""
    names = [
        name
        for checkpoint in wanted.checkpoints
        if (results / fold / f"{checkpoint}.model").is_file()
        for name in (f"{checkpoint}.model", f"{checkpoint}.model.pkl")
    ]
    if names and wanted.reports:
        names += [name for name in REPORTS if (results / fold / name).is_file()]
    return [str(fold / name) for name in names]


def _ensembles(results: Path, task: str, packed: set[Place]) -> list[str]:
    """Return the postprocessing of the ensembles whose models are all packed."""
    models = {f"{place.configuration}__{place.name}" for place in packed}
    found = []
    for path in sorted((results / ENSEMBLES / task).glob(f"ensemble_*/{POSTPROCESSING}")):
        parts = path.parent.name.removeprefix("ensemble_").split("--")
        if set(parts) <= models:
            found.append(path.relative_to(results).as_posix())
    return found


def write_zip(
    collection: Collection,
    results: Path,
    output: Path,
    *,
    licence: str | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Write the zip, whole or not at all, and return its manifest.

    Args:
        collection: what to pack.
        results: `RESULTS_FOLDER/nnUNet`.
        output: path of the zip.
        licence: of the weights, a name or a whole text.
        overwrite: take the place of a file that is there.

    Raises:
        UsageError: there is a file already, or the name does not end in `.zip`.
        DataError: a file is damaged.
        ResourceError: the disk is too small.
    """
    if output.suffix != ".zip":
        raise UsageError(f"-o {output}: the name of the file must end in .zip")
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists already. Choose another name, or give --overwrite")
    for name in collection.files:
        check_file(results, name)
    size = sum((results / name).stat().st_size for name in collection.files)
    require_space(output.parent, size, f"{output.name}", "write it to another disk")
    facts: dict[str, FileFacts] = {}
    with atomic_path(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in collection.files:
            facts[name] = _add(archive, results / name, name)
        first_line = (licence or "").strip().split("\n")[0][:LICENCE_LINE]
        manifest = Manifest(
            task=collection.task,
            models=collection.models,
            files=facts,
            licence=first_line or None,
            licence_text=licence if licence and licence.strip() != first_line else None,
        )
        archive.writestr(MANIFEST, manifest.to_json(), zipfile.ZIP_DEFLATED)
    return manifest


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> FileFacts:
    """Copy one file into the zip; weights are left as they are, since they hardly compress."""
    modified = max(path.stat().st_mtime, EARLIEST)
    info = zipfile.ZipInfo(name, time.localtime(modified)[:6])
    info.compress_type = zipfile.ZIP_STORED if path.suffix == ".model" else zipfile.ZIP_DEFLATED
    info.external_attr = 0o100644 << 16
    info.file_size = path.stat().st_size
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as source, archive.open(info, "w") as sink:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            sink.write(chunk)
            size += len(chunk)
    return FileFacts(size, digest.hexdigest())


def trained_places(results: Path, places: Sequence[Place]) -> tuple[Place, ...]:
    """Return those of several models that have a folder."""
    return tuple(place for place in places if place.folder(results).is_dir())
