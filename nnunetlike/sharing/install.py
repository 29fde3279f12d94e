"""Putting the models of a zip in place: unpacked aside, judged, compared, renamed."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from nnunetlike.core.disk import require_space
from nnunetlike.core.errors import DataError
from nnunetlike.core.folders import atomic_folder, remove_if_empty
from nnunetlike.core.serialization import atomic_path, write_text
from nnunetlike.sharing.archive import Limits, ModelArchive, open_archive, refused
from nnunetlike.sharing.contents import check_file, check_places
from nnunetlike.sharing.layout import MANIFEST, Place, folds_of, place_of
from nnunetlike.sharing.manifest import FileFacts, Manifest, sha256_of

logger = logging.getLogger(__name__)
LEFT_OVER_AGE_S = 86400


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What became of one model of a zip."""

    place: Place
    names: tuple[str, ...]
    """Paths of its files within the zip."""

    outcome: Literal["new", "identical", "completed", "replaced"]
    """completed: files were added to the same model; replaced: another one was set aside."""

    former: Path | None = None
    """Where the model that was there before is now."""

    @property
    def folds(self) -> tuple[str, ...]:
        """Folds that the zip has a checkpoint of."""
        return folds_of(self.place, self.names)


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What became of a zip."""

    models: tuple[Installed, ...]
    manifest: Manifest | None
    """None: the zip has none, so nothing could be compared with what its makers packed."""


@dataclass(frozen=True)
class _Comparison:
    """A model of the zip against the folder it is to become."""

    place: Place
    names: tuple[str, ...]
    there: bool
    differing: tuple[str, ...]
    missing: tuple[str, ...]


def install_archive(
    path: Path, results: Path, *, force: bool = False, limits: Limits | None = None
) -> Installation:
    """Install the models of a zip below `results`.

    Everything is unpacked into a temporary folder there and opened by readers that execute nothing
    before the first file is put in place. A model that is there already stays; with `force`
    another one of the same name is set aside, never deleted.

    Args:
        path: of the zip, ours or of v1.
        results: `RESULTS_FOLDER/nnUNet`.
        force: take the place of models that differ.
        limits: what the zip may ask of this machine; None: the default ones.

    Raises:
        DataError: the zip is refused, or another model is there; nothing has changed.
        ResourceError: the disk is too small.
    """
    with open_archive(path, limits or Limits()) as archive:
        try:
            check_places(archive.members)
        except DataError as error:
            raise refused(path, str(error)) from None
        _require_folders(results, archive.members)
        require_space(
            results, archive.size, f"installing {path.name}", "choose another RESULTS_FOLDER"
        )
        with _staging(results) as staging:
            facts = _unpack_and_check(archive, staging)
            plans = [_compare(place, facts, results) for place in _places(facts)]
            if not force:
                _require_same(path, plans)
            models = tuple(_put(plan, staging, results, archive.manifest) for plan in plans)
    return Installation(models=models, manifest=archive.manifest)


def _places(names: Mapping[str, FileFacts]) -> list[Place]:
    return sorted({place for name in names if (place := place_of(name)) is not None})


def _require_folders(results: Path, names: Mapping[str, object]) -> None:
    """Raise if a file lies where a folder must be."""
    for name in names:
        place = place_of(name)
        if place is None:
            continue
        for path in (place.folder(results), *place.folder(results).parents):
            if path.exists() and not path.is_dir():
                raise DataError(
                    f"{path} is a file, where the folder of a model must be. Move it away; nothing "
                    "was installed"
                )


@contextmanager
def _staging(results: Path) -> Iterator[Path]:
    """Yield an empty folder below `results`; it is gone afterwards, with folders made for it."""
    made = [folder for folder in (results, *results.parents) if not folder.exists()]
    _remove_what_killed_commands_left(results)
    folder = results / f".tmp-{os.getpid()}-install"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
        for empty in made:
            remove_if_empty(empty)


def _remove_what_killed_commands_left(results: Path) -> None:
    """Remove unpacked zips that nobody works with: old ones, and those under our own number."""
    for left in results.glob(".tmp-*-install"):
        old = time.time() - left.stat().st_mtime > LEFT_OVER_AGE_S
        if old or left.name == f".tmp-{os.getpid()}-install":
            shutil.rmtree(left)


def _unpack_and_check(archive: ModelArchive, staging: Path) -> dict[str, FileFacts]:
    facts = archive.unpack(staging)
    for name in sorted(facts):
        try:
            check_file(staging, name)
        except DataError as error:
            raise refused(archive.path, str(error)) from None
    return facts


def _compare(place: Place, facts: Mapping[str, FileFacts], results: Path) -> _Comparison:
    names = tuple(sorted(name for name in facts if place_of(name) == place))
    missing = tuple(name for name in names if not (results / name).exists())
    differing = tuple(
        name for name in names if name not in missing and not _is_same(results / name, facts[name])
    )
    return _Comparison(place, names, place.folder(results).is_dir(), differing, missing)


def _is_same(path: Path, facts: FileFacts) -> bool:
    if not path.is_file() or path.stat().st_size != facts.size:
        return False
    return sha256_of(path) == facts.sha256


def _require_same(path: Path, plans: Sequence[_Comparison]) -> None:
    """Raise if another model is where one of the zip belongs."""
    for plan in plans:
        if not plan.there or not (plan.differing or _lacks_plans(plan)):
            continue
        inside = len(str(plan.place)) + 1
        differing = ", ".join(name[inside:] for name in plan.differing or plan.missing)
        raise DataError(
            f"{path}: another model is installed as {plan.place}; {differing} differ. Nothing was "
            "installed. --force puts that of the zip in its place and keeps the other under "
            "another name; or set RESULTS_FOLDER to another folder"
        )


def _lacks_plans(plan: _Comparison) -> bool:
    """Tell whether a folder is there without plans, so that nothing says it is the same model."""
    return any(name.count("/") == 3 and name.endswith("plans.pkl") for name in plan.missing)


def _put(plan: _Comparison, staging: Path, results: Path, manifest: Manifest | None) -> Installed:
    """Bring one model to its place, whole or not at all."""
    target = plan.place.folder(results)
    former = None
    outcome: Literal["new", "identical", "completed", "replaced"] = "new"
    if plan.there and not plan.differing and not _lacks_plans(plan):
        outcome = "completed" if plan.missing else "identical"
        for name in plan.missing:
            with atomic_path(results / name) as temporary:
                shutil.move(staging / name, temporary)
    else:
        if plan.there:
            former, outcome = _set_aside(target), "replaced"
        with atomic_folder(target) as new:
            for name in plan.names:
                inside = new / Path(name).relative_to(plan.place.path)
                inside.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(staging / name, inside)
            if manifest is not None:
                write_text(new / MANIFEST, manifest.to_json())
    logger.debug("%s: %s", plan.place, outcome)
    return Installed(place=plan.place, names=plan.names, outcome=outcome, former=former)


def _set_aside(folder: Path) -> Path:
    """Rename a model's folder to the first free name; return that."""
    number = 1
    while (aside := folder.with_name(f"replaced-{number}-{folder.name}")).exists():
        number += 1
    folder.rename(aside)
    return aside
