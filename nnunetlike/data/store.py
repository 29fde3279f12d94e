"""Arrays of cases on disk, in one of four forms, and their properties (`ID.pkl`).

A preprocessed case is one float32 array (C + 1, D, H, W): the image channels, then the label.

- `npz`: `ID.npz`, compressed, with the key `data`, and `ID.npy` once it is unpacked; v1's form.
- `npy`: `ID.npy` alone, memory-mapped.
- `blosc2`: `ID.b2nd`, in compressed bricks.
- `fp16`: `ID.npy` alone, of 16 bits a value. Images are rounded; labels stay exact.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from isal import isal_zlib
from isal.isal_zlib import DEFLATED

from nnunetlike.core.errors import DataError
from nnunetlike.core.intact import UNREADABLE
from nnunetlike.core.serialization import atomic_path, load_pickle, save_pickle
from nnunetlike.core.typing import FloatArray, Size
from nnunetlike.data.bricks import BrickedArray, open_bricks, save_bricks, unreadable
from nnunetlike.data.record import CaseRecord

COMPRESSION_LEVEL = 2
"""ISA-L's level of packed files: as small as with zlib's level 1, in a sixth of the time."""

RAW = -15
"""What zlib calls the window of deflated data without a header of their own."""

PACKED_TOGETHER, UNPACKED_TOGETHER = 2**24, 2**20
"""Bytes of an array that are packed as one piece, as numpy does, and unpacked, within the cache."""

EXACT_IN_FP16 = 2048
"""Up to here float16 holds every integer."""

Form = Literal["npz", "npy", "blosc2", "fp16"]
FORMS: tuple[Form, ...] = get_args(Form)
SUFFIXES: dict[Form, str] = {"npz": ".npz", "npy": ".npy", "blosc2": ".b2nd", "fp16": ".npy"}
ARRAY_SUFFIXES = (".npz", ".npy", ".b2nd")
"""Where a case has several, the first is what it was written to."""


def save_npz(path: Path, arrays: Mapping[str, FloatArray]) -> None:
    """Write arrays as a deflated npz, whole or not at all; `numpy.load` reads it."""
    with _npz(path) as archive:
        for name, array in arrays.items():
            with _member(archive, name) as stream:
                _write_array(stream, np.ascontiguousarray(array))


def save_npz_in_parts(
    path: Path, name: str, shape: Size, dtype: npt.DTypeLike, parts: Iterable[npt.NDArray[Any]]
) -> None:
    """Write as `save_npz` one array, whose entries along the first axis come one by one."""
    header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(shape)}
    with _npz(path) as archive, _member(archive, name) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(np.ascontiguousarray(part, dtype).data)


@contextmanager
def _npz(path: Path) -> Iterator[zipfile.ZipFile]:
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        yield archive


@contextmanager
def _member(archive: zipfile.ZipFile, name: str) -> Iterator[IO[bytes]]:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
        member: Any = stream
        # In the place of zlib's. Were zipfile not to look here any more, it would be slow.
        member._compressor = isal_zlib.compressobj(COMPRESSION_LEVEL, DEFLATED, RAW)
        yield member


def load_npz(path: Path, key: str = "data", part: slice | None = None) -> FloatArray:
    """Return one array of an npz, deflated or not.

    Args:
        path: the file.
        key: name of the array.
        part: places along its second axis to return alone; what comes after them is not read, so
            damage may not be noticed.

    Raises:
        DataError: the file is missing, truncated, or has no such array.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as stream:
            member: Any = stream
            if archive.getinfo(f"{key}.npy").compress_type == zipfile.ZIP_DEFLATED:
                member._decompressor = isal_zlib.decompressobj(RAW)
            return _read_array(member, archive.getinfo(f"{key}.npy").file_size, part)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def _write_array(stream: IO[bytes], array: FloatArray) -> None:
    """Write what `numpy.lib.format.write_array` does of a contiguous array, without copying it."""
    header = np.lib.format.header_data_from_array_1_0(array)
    np.lib.format.write_array_header_1_0(stream, header)
    content = array.reshape(-1).view(np.uint8)
    for start in range(0, len(content), PACKED_TOGETHER):
        stream.write(content[start : start + PACKED_TOGETHER].data)


def _read_array(stream: IO[bytes], length: int, part: slice | None = None) -> FloatArray:
    """Return what `numpy.lib.format.read_array` does, unpacked straight into its memory.

    Args:
        stream: a member of a zip, which checks what was read once all of it is.
        length: bytes of it.
        part: places along the second axis, if not all.

    Raises:
        ValueError: the header is no array's, or of another one than what follows.
    """
    shape, fortran_order, dtype = read_npy_header(stream)
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != length - stream.tell():
        raise ValueError(f"it is said to hold {dtype} of shape {shape}")
    if part is not None and not fortran_order and len(shape) > 1:
        return _read_part(stream, shape, dtype, part)
    array = np.empty(shape, dtype, order="F" if fortran_order else "C")
    _fill(array.ravel(order="K"), stream)
    stream.read(1)  # at the end, where the checksum is compared
    return array if part is None else array[:, part]


def read_npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether the order is Fortran's, and type of an npy whose values come next.

    Raises:
        ValueError: this is no header.
        KeyError: it is of a version that arrays of numbers do not need.
    """
    version = np.lib.format.read_magic(stream)
    read_header = {
        (1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0,
    }[version]  # fmt: skip
    return read_header(stream)


def _read_part(
    stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any], part: slice
) -> FloatArray:
    """Return places along the second axis of an array in C order, of which the rest is skipped."""
    start, stop, _ = part.indices(shape[1])
    size = math.prod(shape[2:]) * dtype.itemsize
    array = np.empty((shape[0], stop - start, *shape[2:]), dtype)
    for number, row in enumerate(array):
        _skip(stream, size * (start if number == 0 else start + shape[1] - stop))
        _fill(row.reshape(-1), stream)
    return array


def _fill(array: FloatArray, stream: IO[bytes]) -> None:
    """Read the values of a contiguous array."""
    content, at = array.view(np.uint8), 0
    while at < len(content):
        piece = stream.read(min(UNPACKED_TOGETHER, len(content) - at))
        if not piece:
            raise EOFError("it ends early")
        content[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)


def _skip(stream: IO[bytes], length: int) -> None:
    while length > 0 and (piece := stream.read(min(UNPACKED_TOGETHER, length))):
        length -= len(piece)


def map_npy(path: Path) -> FloatArray:
    """Return the array of an npy, memory-mapped read-only.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except UNREADABLE as error:
        raise unreadable(path, error) from None


def save_npy(path: Path, array: FloatArray) -> None:
    """Write an array as npy, whole or not at all."""
    with atomic_path(path) as temporary:
        np.save(temporary, array)


@dataclass(frozen=True)
class CaseStore:
    """A folder of cases. Each is read in the form it has; a folder may mix them."""

    folder: Path
    form: Form = "npz"
    """What `write` stores a case as."""

    patch_size: Size = (64, 64, 64)
    """What will be read at a time, (D, H, W) or (H, W), which bricks are shaped for."""

    def case_ids(self) -> list[str]:
        """Return the identifiers of all complete cases (array and pkl), sorted as text."""
        return sorted(p.stem for p in self.folder.glob("*.pkl") if self.array_file(p.stem))

    def holds(self, case_id: str) -> bool:
        """Tell whether both files of a case exist."""
        return self.array_file(case_id) is not None and self._properties(case_id).is_file()

    def array_file(self, case_id: str) -> Path | None:
        """Return the file that a case's array was written to; None if there is none."""
        paths = (self.folder / f"{case_id}{suffix}" for suffix in ARRAY_SUFFIXES)
        return next((path for path in paths if path.is_file()), None)

    def form_of(self, case_id: str) -> Form:
        """Return what a case is stored as.

        Raises:
            DataError: it is missing or damaged.
        """
        path = self.array_file(case_id) or self.folder / f"{case_id}{SUFFIXES[self.form]}"
        if path.suffix == ".npy":
            return "fp16" if map_npy(path).dtype == np.float16 else "npy"
        return "npz" if path.suffix == ".npz" else "blosc2"

    def write(self, case_id: str, data: FloatArray, record: CaseRecord) -> None:
        """Write a case in place of what there was of it, in whatever form.

        The old properties go first and the new ones come last, so a half-written case counts for
        none.

        Raises:
            DataError: values do not fit the form.
            UsageError: what writes the form is not installed.
        """
        self._properties(case_id).unlink(missing_ok=True)
        target = self.folder / f"{case_id}{SUFFIXES[self.form]}"
        if self.form == "npz":
            save_npz(target, {"data": data})
        elif self.form == "blosc2":
            save_bricks(target, data, self.patch_size)
        else:
            save_npy(target, data if self.form == "npy" else _rounded(data, case_id))
        self.remove_arrays(case_id, keep=target)
        self.write_record(case_id, record)

    def remove_arrays(self, case_id: str, keep: Path | None = None) -> None:
        """Delete what there is of a case's array, in whatever form, but for one file."""
        for suffix in ARRAY_SUFFIXES:
            path = self.folder / f"{case_id}{suffix}"
            if path != keep:
                path.unlink(missing_ok=True)

    def write_record(self, case_id: str, record: CaseRecord) -> None:
        """Write the properties of a case."""
        save_pickle(record.to_v1(), self._properties(case_id))

    def record(self, case_id: str) -> CaseRecord:
        """Return the properties of a case."""
        return CaseRecord.from_v1(load_pickle(self._properties(case_id)))

    def load(self, case_id: str, *, unpacked: bool = True) -> FloatArray:
        """Return the array of a case, memory-mapped read-only where that can be.

        Args:
            case_id: the case.
            unpacked: take `ID.npy` where a case that is stored as npz was unpacked.

        Raises:
            DataError: it is missing or damaged.
        """
        found = self.open(case_id, unpacked=unpacked)
        return found[:] if isinstance(found, BrickedArray) else found

    def load_slices(self, case_id: str, start: int, stop: int) -> FloatArray:
        """Return slices of a case, (C + 1, stop - start, H, W), without unpacking all of it.

        Raises:
            DataError: it is missing, or damaged in what is read of it.
        """
        packed, part = self.folder / f"{case_id}.npz", slice(start, stop)
        if packed.is_file():
            return load_npz(packed, part=part)
        return np.asarray(self.open(case_id)[:, part])

    def open(self, case_id: str, *, unpacked: bool = True) -> FloatArray | BrickedArray:
        """Return as `load` the array of a case, but one in bricks unread, to take slices of it."""
        packed, plain, bricks = (self.folder / f"{case_id}{end}" for end in ARRAY_SUFFIXES)
        if plain.is_file() and (unpacked or not packed.is_file()):
            return map_npy(plain)
        return open_bricks(bricks) if bricks.is_file() else load_npz(packed)

    def is_unpacked(self, case_id: str) -> bool:
        """Tell whether a case can be read in parts: only an npz needs a current `ID.npy` for it."""
        packed, target = self.folder / f"{case_id}.npz", self.folder / f"{case_id}.npy"
        if not packed.is_file():
            return True
        return target.is_file() and target.stat().st_mtime_ns >= packed.stat().st_mtime_ns

    def unpack(self, case_id: str) -> None:
        """Write `ID.npy` beside `ID.npz` unless a current one is there."""
        if not self.is_unpacked(case_id):
            save_npy(self.folder / f"{case_id}.npy", load_npz(self.folder / f"{case_id}.npz"))

    def _properties(self, case_id: str) -> Path:
        return self.folder / f"{case_id}.pkl"


def _rounded(data: FloatArray, case_id: str) -> FloatArray:
    """Return a case (C + 1, D, H, W) with 16 bits a value.

    Raises:
        DataError: its labels would not stay exact, or its image is beyond the range.
    """
    label, largest = float(np.abs(data[-1]).max()), float(np.abs(data[:-1]).max())
    if label > EXACT_IN_FP16 or largest > float(np.finfo(np.float16).max):
        what = f"label {label:.0f}" if label > EXACT_IN_FP16 else f"image value {largest:g}"
        raise DataError(
            f"{case_id}: its {what} does not fit 16 bits. Preprocess with another --store than fp16"
        )
    return data.astype(np.float16)
