"""PNG, JPEG and BMP: pictures of two dimensions, grey or in colour, through Pillow.

A picture is one slice (C, 1, H, W) of thickness 999 with a spacing of 1 in the plane. Colour is
three channels of one file; alpha is no channel.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from PIL import Image

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import atomic_path
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.geometry import SLICE_THICKNESS, Geometry
from nnunetlike.data.imageio import IMAGE_FORMATS

GREY_MODES = ("1", "L", "I;16", "I;16B", "I", "F")
SCALED_GREY = {"L;2": 85, "L;4": 17}
"""By Pillow's name of a stored form: what Pillow multiplies grey values with to fill 8 bits."""

ROTATION_TAG = 0x0112
"""Orientation in Exif."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RasterFormat:
    """Pictures; labels are PNG or BMP, since JPEG changes values."""

    suffixes: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".bmp")
    multichannel: bool = True
    oriented: bool = False

    def orientation(self, path: Path) -> str | None:
        """Return None: these files do not say."""
        return None

    def read(self, paths: Sequence[Path]) -> tuple[FloatArray, Geometry]:
        """Return the channels of all files as one float32 array (C, 1, H, W) and their grid.

        A palette becomes colours, alpha is dropped.

        Raises:
            DataError: a file cannot be read, or the files differ in size.
        """
        return stack_channels(paths, [_channels(path) for path in paths])

    def read_label(self, path: Path) -> tuple[LabelMap, Geometry]:
        """Return a label map (1, H, W) and its grid.

        The values of a palette are its indices; a grey picture stored as colour is read as grey.

        Raises:
            DataError: the file cannot be read, is JPEG, or holds colours.
        """
        if path.name.lower().endswith((".jpg", ".jpeg")):
            raise DataError(
                f"{path}: JPEG changes the values of a label map. Export it as PNG from the "
                "original, not from this file"
            )
        picture, stored_as = _open(path)
        label = np.asarray(picture)
        if label.ndim == 3:
            label = _grey(label[..., : 3 if label.shape[-1] > 2 else 1], path)
        label = label // SCALED_GREY.get(stored_as, 1) if label.dtype == np.uint8 else label
        label = label.astype(np.uint8) if label.dtype == np.bool_ else label
        return label[None], flat_geometry(label.shape)

    def write_label(
        self, label: LabelMap, geometry: Geometry, path: Path, like: Path | None = None
    ) -> None:
        """Write a label map (1, H, W) as a grey picture of 8 bits, or 16 where values need them.

        Raises:
            DataError: it has several slices, or values that the format does not hold.
        """
        limit = 255 if path.name.lower().endswith(".bmp") else 65535
        if label.shape[0] != 1 or label.min() < 0 or label.max() > limit:
            raise DataError(
                f"{path} cannot hold a label map of shape {label.shape} with values "
                f"{label.min()} to {label.max()}; a picture has one slice and values 0 to {limit}"
            )
        pixels = label[0].astype(np.uint8 if label.max() < 256 else np.uint16)
        with atomic_path(path) as temporary:
            Image.fromarray(pixels).save(temporary)


def stack_channels(
    paths: Sequence[Path], files: Sequence[tuple[FloatArray, Geometry]]
) -> tuple[FloatArray, Geometry]:
    """Return the channels (C, D, H, W) of several files as one array, and the first one's grid.

    Raises:
        DataError: the files differ in size.
    """
    first = files[0][1]
    for path, (_, geometry) in zip(paths, files, strict=True):
        if geometry.shape != first.shape:
            raise DataError(
                f"{path} has {geometry.shape} voxels (D, H, W) but {paths[0]} {first.shape}; "
                "all channels of a case must lie on one grid"
            )
    return np.concatenate([image for image, _ in files]), first


def flat_geometry(shape: Sequence[int]) -> Geometry:
    """Return the grid of a picture of shape (H, W)."""
    height, width = shape
    return Geometry(shape=(1, height, width), spacing=(SLICE_THICKNESS, 1.0, 1.0), leading="single")


def _channels(path: Path) -> tuple[FloatArray, Geometry]:
    """Return the channels of one file, float32 (C, 1, H, W)."""
    picture, stored_as = _open(path)
    if stored_as.startswith(("RGB;16", "RGBA;16", "LA;16")):
        pixels = _sixteen_bit_colour(path)
    else:
        pixels = np.asarray(_plain(picture))
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4):
        logger.info("%s: alpha is left out", path)
        pixels = pixels[..., :-1]
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    image = np.moveaxis(pixels, -1, 0)[:, None].astype(np.float32)
    return np.ascontiguousarray(image), flat_geometry(pixels.shape[:2])


def _open(path: Path) -> tuple[Image.Image, str]:
    """Return a picture, decoded, and Pillow's name of the form in which its file holds it."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        with Image.open(path) as picture:
            tiles: Any = picture.tile
            arguments = tiles[0][3] if tiles else ""
            picture.load()
            if picture.getexif().get(ROTATION_TAG, 1) != 1:
                logger.info("%s: Exif asks to turn it; pixels are taken as stored", path)
            return picture, str(arguments if isinstance(arguments, str) else arguments[0])
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None


def _plain(picture: Image.Image) -> Image.Image:
    """Return a picture as grey, grey with alpha, colour, or colour with alpha."""
    if picture.mode in (*GREY_MODES, "LA", "RGB", "RGBA"):
        return picture
    return picture.convert("RGBA" if "transparency" in picture.info else "RGB")


def _sixteen_bit_colour(path: Path) -> Any:
    """Return 16-bit colour (H, W, C), which Pillow would cut down to 8 bits."""
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def _grey(pixels: Any, path: Path) -> Any:
    """Return the values of a picture whose colours are all grey."""
    if not (pixels == pixels[..., :1]).all():
        colours = len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0))
        raise DataError(
            f"{path} holds {colours} colours; a label map holds one integer per pixel. Export it "
            "as a grey or palette picture"
        )
    return pixels[..., 0]


IMAGE_FORMATS.add("raster", RasterFormat())
