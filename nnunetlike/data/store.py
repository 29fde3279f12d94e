"""Arrays of cases on disk: `ID.npz` (compressed, key `data`), `ID.npy` (unpacked), `ID.pkl`.

A preprocessed case is one float32 array (C + 1, D, H, W): the image channels, then the label.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import atomic_path, load_pickle, save_pickle
from nnunetlike.core.typing import FloatArray
from nnunetlike.data.record import CaseRecord

COMPRESSION_LEVEL = 1
"""zlib's level of packed files: floats gain little from more."""


def save_npz(
    path: Path, arrays: Mapping[str, FloatArray], compresslevel: int = COMPRESSION_LEVEL
) -> None:
    """Write arrays as a deflated npz, whole or not at all; `numpy.load` reads it."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(
            temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=compresslevel
        ) as archive,
    ):
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)


def load_npz(path: Path, key: str = "data") -> FloatArray:
    """Return one array of an npz.

    Raises:
        DataError: the file is missing, truncated, or has no such array.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return np.asarray(archive[key])
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({error}); delete it and run the step that made it again"
        ) from None


@dataclass(frozen=True)
class CaseStore:
    """A folder of cases in v1's layout."""

    folder: Path

    def case_ids(self) -> list[str]:
        """Return the identifiers of all complete cases (npz and pkl), sorted as text."""
        return sorted(p.stem for p in self.folder.glob("*.npz") if p.with_suffix(".pkl").is_file())

    def holds(self, case_id: str) -> bool:
        """Tell whether both files of a case exist."""
        return (self.folder / f"{case_id}.npz").is_file() and self._properties(case_id).is_file()

    def write(self, case_id: str, data: FloatArray, record: CaseRecord) -> None:
        """Write a case; the properties come last, so a half-written case does not count."""
        save_npz(self.folder / f"{case_id}.npz", {"data": data})
        self.write_record(case_id, record)

    def write_record(self, case_id: str, record: CaseRecord) -> None:
        """Write the properties of a case."""
        save_pickle(record.to_v1(), self._properties(case_id))

    def record(self, case_id: str) -> CaseRecord:
        """Return the properties of a case."""
        return CaseRecord.from_v1(load_pickle(self._properties(case_id)))

    def load(self, case_id: str, *, unpacked: bool = True) -> FloatArray:
        """Return the array of a case, memory-mapped read-only when it was unpacked."""
        unpacked_path = self.folder / f"{case_id}.npy"
        if unpacked and unpacked_path.is_file():
            return np.asanyarray(np.load(unpacked_path, mmap_mode="r", allow_pickle=False))
        return load_npz(self.folder / f"{case_id}.npz")

    def is_unpacked(self, case_id: str) -> bool:
        """Tell whether `ID.npy` exists and is no older than `ID.npz`."""
        packed, target = self.folder / f"{case_id}.npz", self.folder / f"{case_id}.npy"
        return target.is_file() and target.stat().st_mtime_ns >= packed.stat().st_mtime_ns

    def unpack(self, case_id: str) -> None:
        """Write `ID.npy` beside `ID.npz` unless a current one is there."""
        if self.is_unpacked(case_id):
            return
        packed, target = self.folder / f"{case_id}.npz", self.folder / f"{case_id}.npy"
        with atomic_path(target) as temporary:
            np.save(temporary, load_npz(packed))

    def _properties(self, case_id: str) -> Path:
        return self.folder / f"{case_id}.pkl"
