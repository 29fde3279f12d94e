"""Files on disk: what they hold unpacked, and whether they are whole.

A copy that was interrupted or a disk that ran full leaves files that begin well. Some readers take
them and fill the rest with zeros (ITK's of NIfTI for one), so they are looked at here.
"""

from __future__ import annotations

import gzip
import struct
import tokenize
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from isal.igzip_lib import IsalError
from PIL import Image, UnidentifiedImageError

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import load_pickle

CHUNK = 2**20
PICTURES = (".png", ".jpg", ".jpeg")
ZIPS = (".npz", ".zip")
BRICKS = ".b2nd"
BRICKS_MAGIC = b"b2frame\0"

UNREADABLE: Any = (
    OSError, EOFError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError,
    RuntimeError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, IsalError,
)  # fmt: skip
"""What readers raise of damaged arrays, zips and their headers, which numpy reads as Python text.

The stub of IsalError has no base class.
"""


def unpacked_size(path: Path) -> int:
    """Return about how many bytes a file holds after decompression, without reading it all.

    gzip tells the size modulo 4 GiB, zip archives list it, pictures tell their pixels, arrays of
    blosc2 the size of their bricks. Other files count as they are; so does one that is damaged, 0
    when it is missing.
    """
    try:
        size = path.stat().st_size
        if path.suffix == ".gz" and size > 18:
            return _gzip_size(path, size)
        if path.suffix.lower() in PICTURES:
            return _picture_size(path)
        if path.suffix == BRICKS:
            return _frame_sizes(path)[1] or size
        if path.suffix in ZIPS:
            with zipfile.ZipFile(path) as archive:
                return sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, UnidentifiedImageError, Image.DecompressionBombError):
        return size
    except OSError:
        return 0
    return size


def damage(path: Path) -> str | None:
    """Return what is wrong with a file, or None if it is whole; compressed files are read through.

    Knows `.gz`, `.npz` and `.pkl`; of `.npy` and `.b2nd` whether they are as long as they say. Of
    other files it only tells that they are missing or empty.
    """
    if not path.is_file():
        return "is missing"
    if path.stat().st_size == 0:
        return "is empty"
    try:
        if path.suffix == ".gz":
            _read_through(path)
        elif path.suffix in ZIPS:
            with zipfile.ZipFile(path) as archive:
                broken = archive.testzip()
                if broken is not None:
                    return f"is damaged (at {broken})"
        elif path.suffix == ".pkl":
            load_pickle(path)
        elif path.suffix == ".npy":
            np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == BRICKS and _frame_sizes(path)[0] != path.stat().st_size:
            return "is truncated or damaged"
    except (*UNREADABLE, DataError):
        return "is truncated or damaged"
    return None


def _gzip_size(path: Path, packed: int) -> int:
    with path.open("rb") as stream:
        stream.seek(-4, 2)
        size = int.from_bytes(stream.read(4), "little")
    while size < packed - 64:  # the true size is larger by a multiple of 4 GiB
        size += 2**32
    return size


def _frame_sizes(path: Path) -> tuple[int, int]:
    """Return the bytes that a file of blosc2 has and unpacks to; zeros where it is none.

    Source: C-Blosc2's README_CFRAME_FORMAT.rst.
    """
    with path.open("rb") as stream:
        header = stream.read(38)
    if header[2:10] != BRICKS_MAGIC or len(header) < 38:
        return 0, 0
    return int.from_bytes(header[16:24], "big"), int.from_bytes(header[30:38], "big")


def _picture_size(path: Path) -> int:
    """Return the bytes of a picture at 8 bits per value; only its header is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # here size is welcome
        with Image.open(path) as picture:
            return picture.width * picture.height * len(picture.getbands())


def _read_through(path: Path) -> None:
    with gzip.open(path) as stream:
        while stream.read(CHUNK):
            pass
