"""What the files of a model hold, opened by readers that execute nothing."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

from nnunetlike.core.errors import DataError
from nnunetlike.core.resources import in_words
from nnunetlike.core.serialization import load_json, load_pickle
from nnunetlike.networks.model_files import load_model_file
from nnunetlike.sharing.layout import PLANS, Place, folds_of, place_of

LARGEST_JSON = 64 * 2**20
CHECKPOINT_RATIO = 100
"""Unpacked to packed bytes of a checkpoint, which itself is a zip of tensors; torch packs none."""

SMALL = 2**20
MAGIC = {".png": b"\x89PNG\r\n\x1a\n", ".pdf": b"%PDF-"}


def check_places(names: Iterable[str]) -> None:
    """Do nothing if each model has what prediction needs.

    Args:
        names: paths within the zip.

    Raises:
        DataError: plans, checkpoints, or what belongs to a checkpoint are missing.
    """
    known = set(names)
    for place in sorted({place for name in known if (place := place_of(name)) is not None}):
        if place.is_ensemble:
            continue
        _check_place(place, known)


def _check_place(place: Place, names: set[str]) -> None:
    if f"{place}/{PLANS}" not in names:
        raise DataError(f"{place} lacks {PLANS}")
    if not folds_of(place, names):
        raise DataError(f"{place} has no fold with a checkpoint (fold_0/NAME.model)")
    for name in sorted(names):
        if place_of(name) == place and name.endswith(".model") and f"{name}.pkl" not in names:
            raise DataError(f"{name} lacks its {Path(name).name}.pkl")


def check_file(folder: Path, name: str) -> None:
    """Do nothing if a file of a model can be read without executing anything.

    Args:
        folder: what `name` is relative to; it is left out of messages.
        name: of the file, as in the zip.

    Raises:
        DataError: it is damaged, or holds more than tensors and plain types.
    """
    path = folder / name
    try:
        _open(path)
    except DataError as error:
        raise DataError(str(error).replace(f"{folder}/", "")) from None
    except (MemoryError, RecursionError):
        raise DataError(f"{name} asks for more memory or depth than a model needs") from None
    except Exception as error:  # noqa: BLE001 - a stranger's file may make readers raise anything
        raise DataError(
            f"{name} cannot be read as what its name says ({type(error).__name__}: {error})"
        ) from None


def _open(path: Path) -> None:
    suffix = path.suffix
    if suffix == ".model":
        _check_ratio(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a stranger's file torch may say many things
            load_model_file(path)
    elif suffix == ".pkl":
        load_pickle(path)
    elif suffix == ".json":
        _check_json(path)
    elif suffix in MAGIC:
        _check_beginning(path, MAGIC[suffix])
    else:
        _check_text(path)


def _check_ratio(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        return  # torch before 1.6 wrote no zip
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(info.file_size for info in archive.infolist())
    if unpacked > SMALL and unpacked > CHECKPOINT_RATIO * path.stat().st_size:
        raise DataError(
            f"{path} is a compression bomb: {in_words(unpacked)} in {in_words(path.stat().st_size)}"
        )


def _check_json(path: Path) -> None:
    size = path.stat().st_size
    if size > LARGEST_JSON:
        raise DataError(f"{path} has {in_words(size)}, at most {in_words(LARGEST_JSON)} are read")
    load_json(path)


def _check_beginning(path: Path, magic: bytes) -> None:
    with path.open("rb") as stream:
        if stream.read(len(magic)) != magic:
            raise DataError(f"{path} is not what its name says: it is no {path.suffix[1:].upper()}")


def _check_text(path: Path) -> None:
    with path.open("rb") as stream:
        if b"\0" in stream.read(SMALL):
            raise DataError(f"{path} is no text")
