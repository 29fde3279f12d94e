"""TIFF through tifffile: one page is a picture, several pages are a volume.

TIFF has no agreed place for the spacing of a volume. It is taken from, in this order:

1. `ID.json` beside `ID_0000.tif` (or `ID.tif`): `{"spacing": [D, H, W]}` in mm, as in nnU-Net v2
2. the metadata of ImageJ or OME, where they name a unit of length
3. nothing: 1 mm along each axis, and a warning says so

A picture has the spacing 1 in the plane unless there is an `ID.json`.
"""

from __future__ import annotations

import logging
import re
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import atomic_path, load_json
from nnunetlike.core.typing import FloatArray, LabelMap, Spacing3
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import IMAGE_FORMATS, split_ending, to_integers
from nnunetlike.data.imageio.raster import flat_geometry, stack_channels

MILLIMETRES = {
    "m": 1e3, "cm": 10.0, "centimeter": 10.0, "mm": 1.0, "millimeter": 1.0, "inch": 25.4,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "\\u00b5m": 1e-3, "micron": 1e-3, "micrometer": 1e-3,
    "nm": 1e-6, "nanometer": 1e-6,
}  # fmt: skip
"""Length of a unit in mm, by its name in ImageJ and OME."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TiffFormat:
    """TIFF pictures and stacks."""

    suffixes: tuple[str, ...] = (".tif", ".tiff")
    multichannel: bool = True
    oriented: bool = False

    def orientation(self, path: Path) -> str | None:
        """Return None: these files do not say."""
        return None

    def read(self, paths: Sequence[Path]) -> tuple[FloatArray, Geometry]:
        """Return the channels of all files as one float32 array (C, D, H, W) and their grid.

        Raises:
            DataError: a file cannot be read, or the files differ in size.
        """
        files = []
        for path in paths:
            voxels, geometry, has_spacing = _read(path)
            if not has_spacing:
                logger.warning(
                    "%s names no spacing; 1 mm is taken along each axis. Give it in %s, as "
                    '{"spacing": [D, H, W]}', path, _sidecar(path).name,
                )  # fmt: skip
            files.append((np.ascontiguousarray(voxels, np.float32), geometry))
        return stack_channels(paths, files)

    def read_label(self, path: Path) -> tuple[LabelMap, Geometry]:
        """Return a label map (D, H, W) and its grid.

        Raises:
            DataError: the file cannot be read, or holds fractions or several channels.
        """
        voxels, geometry, _ = _read(path)
        if len(voxels) != 1:
            raise DataError(f"{path} has {len(voxels)} channels; a label map has one")
        label = voxels[0]
        label = to_integers(label, path)
        label = label.astype(np.uint8) if label.dtype == np.bool_ else label
        return label, geometry

    def write_label(
        self, label: LabelMap, geometry: Geometry, path: Path, like: Path | None = None
    ) -> None:
        """Write a label map (D, H, W) with its spacing as ImageJ keeps it.

        Raises:
            DataError: it holds values that the format does not.
        """
        if label.min() < 0 or label.max() > 65535:
            raise DataError(
                f"{path} cannot hold values {label.min()} to {label.max()}; they must be 0 to 65535"
            )
        voxels = label.astype(np.uint8 if label.max() < 256 else np.uint16)
        with atomic_path(path) as temporary:
            if geometry.leading == "single":
                tifffile.imwrite(temporary, voxels[0], photometric="minisblack", compression="zlib")
                return
            z, y, x = geometry.spacing
            tifffile.imwrite(
                temporary,
                voxels,
                imagej=True,
                resolution=(1 / x, 1 / y),
                metadata={"axes": "ZYX", "spacing": z, "unit": "mm"},
            )


def _read(path: Path) -> tuple[Any, Geometry, bool]:
    """Return the voxels (C, D, H, W), their grid, and whether the file's spacing is known."""
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            if len(file.series) > 1:
                logger.info("%s: only the first of %d series is read", path, len(file.series))
            voxels = _channels_first(series.asarray(), series.axes, path)
            spacing = _spacing(file, path)
    except (
        OSError, ValueError, IndexError, KeyError, zlib.error, tifffile.TiffFileError,
        ElementTree.ParseError,
    ) as error:  # fmt: skip
        raise DataError(f"{path} cannot be read as TIFF: {error}") from None
    if voxels.shape[1] == 1:
        geometry = flat_geometry(voxels.shape[2:])
        given = _from_sidecar(path)
        return voxels, geometry if given is None else replace(geometry, spacing=given), True
    d, h, w = voxels.shape[1:]
    return voxels, Geometry(shape=(d, h, w), spacing=spacing or (1.0, 1.0, 1.0)), bool(spacing)


def _channels_first(voxels: Any, axes: str, path: Path) -> Any:
    """Return an array with tifffile's names of axes as (C, D, H, W); alpha is left out."""
    kept = [a for a, n in zip(axes, voxels.shape, strict=True) if n > 1 or a in "YX"]
    channel = [a for a in kept if a in "CS"]
    depth = [a for a in kept if a not in "CSYX"]
    if len(channel) > 1 or len(depth) > 1 or not {"Y", "X"} <= set(kept):
        raise DataError(
            f"{path} has the axes {axes} of {voxels.shape}; an image has a height, a width, and at "
            "most one further axis in space and one of channels"
        )
    voxels = voxels.reshape(
        [n for a, n in zip(axes, voxels.shape, strict=True) if a in kept]
    ).transpose([kept.index(a) for a in (*channel, *depth, "Y", "X")])
    if channel == ["S"] and len(voxels) in (2, 4):
        logger.info("%s: alpha is left out", path)
        voxels = voxels[:-1]
    return voxels.reshape(len(voxels) if channel else 1, -1, *voxels.shape[-2:])


def _spacing(file: tifffile.TiffFile, path: Path) -> Spacing3 | None:
    return _from_sidecar(path) or _from_imagej(file) or _from_ome(file)


def _sidecar(path: Path) -> Path:
    """Return the path of `ID.json` for `ID_0000.tif` or `ID.tif`."""
    stem = split_ending(path.name)[0]
    exact = path.with_name(f"{stem}.json")
    return exact if exact.is_file() else path.with_name(re.sub(r"_\d{4}$", "", stem) + ".json")


def _from_sidecar(path: Path) -> Spacing3 | None:
    sidecar = _sidecar(path)
    if not sidecar.is_file():
        return None
    given = load_json(sidecar)
    spacing = given.get("spacing") if isinstance(given, dict) else None
    lengths = [v for v in spacing if _is_length(v)] if isinstance(spacing, list) else []
    if len(lengths) != 3 or lengths != spacing:
        raise DataError(f'{sidecar} must hold {{"spacing": [D, H, W]}} in mm, each above 0')
    d, h, w = (float(value) for value in lengths)
    return d, h, w


def _is_length(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < float("inf")


def _from_imagej(file: tifffile.TiffFile) -> Spacing3 | None:
    metadata: Any = file.imagej_metadata or {}
    unit = MILLIMETRES.get(str(metadata.get("unit", "")).lower())
    page: Any = file.pages[0]
    tags = [page.tags.get(name) for name in ("YResolution", "XResolution")]
    if unit is None or "spacing" not in metadata or None in tags:
        return None
    (y_dots, y_length), (x_dots, x_length) = (tag.value for tag in tags)
    if not (y_dots and x_dots and _is_length(metadata["spacing"])):
        return None
    return metadata["spacing"] * unit, y_length / y_dots * unit, x_length / x_dots * unit


def _from_ome(file: tifffile.TiffFile) -> Spacing3 | None:
    if not file.is_ome or not file.ome_metadata:
        return None
    pixels = ElementTree.fromstring(file.ome_metadata).find(".//{*}Pixels")
    if pixels is None:
        return None
    sizes = []
    for axis in "ZYX":
        size = pixels.get(f"PhysicalSize{axis}")
        unit = MILLIMETRES.get(pixels.get(f"PhysicalSize{axis}Unit", "µm").lower())
        if size is None or unit is None or float(size) <= 0:
            return None
        sizes.append(float(size) * unit)
    d, h, w = sizes
    return d, h, w


IMAGE_FORMATS.add("tiff", TiffFormat())
