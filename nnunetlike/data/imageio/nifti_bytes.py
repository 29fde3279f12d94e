"""Voxels of NIfTI files to and from their bytes, packed by ISA-L, which is faster than zlib.

Only the plain case is read here: three axes, values stored as they are. What else a NIfTI file may
be is left to ITK and nibabel, and so is what its header says of the grid.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from isal import isal_zlib
from isal.igzip_lib import IsalError
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from nnunetlike.core.serialization import atomic_path
from nnunetlike.core.typing import LabelMap

UNREADABLE = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)
"""What nibabel raises for damaged files."""

GZIP = 31
"""What zlib calls the window of a gzip stream."""

PIECE = 1 << 18
"""Bytes that are packed at once."""


def plain_voxels(path: Path) -> Any:
    """Return the voxels (D, H, W) of a NIfTI file as stored, read-only; None if it is not plain.

    Plain is what has three axes of integers or floats and no scaling, is whole, and when packed,
    packed as one stream.
    """
    try:
        image: Any = nibabel.load(path)
        shape, dtype, stored = image.shape, image.get_data_dtype(), image.dataobj
        if len(shape) != 3 or dtype.kind not in "iuf" or (stored.slope, stored.inter) != (1, 0):
            return None
        count, offset = math.prod(shape), int(stored.offset)
        content = _content(path, offset + count * dtype.itemsize)
        if len(content) < offset + count * dtype.itemsize:
            return None
    except (*UNREADABLE, IsalError):  # type: ignore[misc]  # its stub has no base class
        return None
    voxels = np.frombuffer(content, dtype, count, offset).reshape(shape[::-1])
    return voxels.astype(dtype.newbyteorder("="), copy=False)


def _content(path: Path, expected: int) -> bytes:
    """Return the bytes of a file, unpacked; there should be so many."""
    content = path.read_bytes()
    packed = path.name.lower().endswith(".gz")
    return isal_zlib.decompress(content, GZIP, expected + 1) if packed else content


def with_shape(head: bytes, header_class: Any, shape: tuple[int, ...]) -> bytes:
    """Return what precedes the voxels of a NIfTI file, for other lengths of its axes.

    Args:
        head: header and what lies between it and the voxels.
        header_class: nibabel's class for it.
        shape: lengths, the fastest axis first, as many as before.
    """
    size = header_class.template_dtype.itemsize
    header = header_class(head[:size])
    header["dim"][1 : 1 + len(shape)] = shape
    return bytes(header.binaryblock) + head[size:]


def write_voxels(head: bytes, label: LabelMap, path: Path) -> None:
    """Write a NIfTI file, packed if its name says so, whole or not at all.

    Args:
        head: what precedes the voxels.
        label: voxels in the order of the file, (D, H, W).
        path: file to write.
    """
    voxels = np.ascontiguousarray(label).data.cast("B")
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        if not path.name.lower().endswith(".gz"):
            stream.write(head)
            stream.write(voxels)
            return
        packer = isal_zlib.compressobj(level=1, wbits=GZIP)
        stream.write(packer.compress(head))
        for start in range(0, len(voxels), PIECE):
            stream.write(packer.compress(voxels[start : start + PIECE]))
        stream.write(packer.flush())
