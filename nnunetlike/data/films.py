"""Films (AVI, MP4) in and out, through PyAV, which is an optional extra. T time, H, W."""

from __future__ import annotations

import importlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.serialization import atomic_path

Bytes = npt.NDArray[np.uint8]


def require_films(purpose: str) -> Any:
    """Return the module `av`.

    Args:
        purpose: what needs it, to begin the message with.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("av")
    except ImportError:
        raise UsageError(
            f"{purpose} needs PyAV, which is not installed here. Install it with: "
            'pip install "nnunetlike[video]"'
        ) from None


def read_film(path: Path) -> Bytes:
    """Return the frames of a film in grey, (T, H, W).

    Raises:
        DataError: it cannot be decoded, or holds no picture.
        UsageError: PyAV is not installed.
    """
    av = require_films("reading films")
    try:
        with av.open(str(path)) as film:
            frames = [frame.to_ndarray(format="gray") for frame in film.decode(video=0)]
    except (av.error.FFmpegError, IndexError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} cannot be decoded ({reason}). Copy or download it again") from None
    if not frames:
        raise DataError(f"{path} holds no frame. Copy or download it again")
    return np.stack(frames)


def write_film(frames: Bytes, path: Path, fps: float) -> None:
    """Write coloured frames (T, H, W, 3) as MP4, whole or not at all.

    An odd height or width loses its last row or column, which H.264 cannot hold.

    Raises:
        UsageError: PyAV is not installed.
    """
    av = require_films("writing MP4")
    height, width = (side // 2 * 2 for side in frames.shape[1:3])
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for pixels in frames:
            cut = np.ascontiguousarray(pixels[:height, :width])
            film.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
        film.mux(stream.encode())
