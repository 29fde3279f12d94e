"""What holds for every image format: round trips, geometry, endings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import (
    IMAGE_FORMATS,
    ImageFormat,
    format_of,
    known_endings,
    label_ending,
    split_ending,
)

ENDINGS = known_endings()
VOLUMES = tuple(e for e in ENDINGS if e not in (".png", ".jpg", ".jpeg", ".bmp"))
FLAT = Geometry(shape=(1, 4, 5), spacing=(999.0, 1.0, 1.0), leading="single")
VOLUME = Geometry(shape=(3, 4, 5), spacing=(2.5, 0.75, 0.3))


def written(folder: Path, ending: str, geometry: Geometry, dtype: str) -> tuple[Path, np.ndarray]:
    path = folder / f"a{label_ending(ending)}"
    label = np.arange(np.prod(geometry.shape)).reshape(geometry.shape).astype(dtype)
    format_of(path).write_label(label, geometry, path)
    return path, label


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_flat_label_survives_with_its_grid(tmp_path: Path, ending: str, dtype: str) -> None:
    path, label = written(tmp_path, ending, FLAT, dtype)
    found, geometry = format_of(path).read_label(path)
    assert np.array_equal(found, label) and np.issubdtype(found.dtype, np.integer)
    assert geometry.shape == FLAT.shape and geometry.leading == "single"
    assert np.allclose(geometry.spacing, FLAT.spacing)


@pytest.mark.parametrize("ending", VOLUMES)
def test_a_volume_survives_with_its_spacing(tmp_path: Path, ending: str) -> None:
    path, label = written(tmp_path, ending, VOLUME, "uint8")
    found, geometry = format_of(path).read_label(path)
    assert np.array_equal(found, label) and geometry.shape == VOLUME.shape
    assert np.allclose(geometry.spacing, VOLUME.spacing, rtol=1e-6)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_label_reads_as_an_image_of_one_channel(tmp_path: Path, ending: str) -> None:
    path, label = written(tmp_path, ending, FLAT, "uint8")
    image, geometry = format_of(path).read([path, path])
    assert image.dtype == np.float32 and image.flags.c_contiguous
    assert np.array_equal(image, np.stack([label, label])) and geometry.shape == label.shape


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [None, b"", b"no image"])
def test_missing_and_damaged_files_are_named(
    tmp_path: Path, ending: str, content: bytes | None
) -> None:
    path = tmp_path / f"bad{ending}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"bad{ending}"):
        format_of(path).read([path])
    with pytest.raises(DataError, match=f"bad{ending}"):
        format_of(path).read_label(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_cut_short_are_named(tmp_path: Path, ending: str) -> None:
    rng = np.random.default_rng(0)
    geometry = Geometry(shape=(1, 64, 64), spacing=(999.0, 1.0, 1.0), leading="single")
    path = tmp_path / f"cut{label_ending(ending)}"
    format_of(path).write_label(rng.integers(0, 255, (1, 64, 64), np.uint8), geometry, path)
    data = path.with_suffix(".zraw") if ending == ".mhd" else path
    data.write_bytes(data.read_bytes()[:1500])
    with pytest.raises(DataError, match="cut"):
        format_of(path).read([path])


@pytest.mark.parametrize("ending", ENDINGS)
def test_channels_of_different_size_are_refused(tmp_path: Path, ending: str) -> None:
    a, b = (tmp_path / f"{name}{label_ending(ending)}" for name in "ab")
    for path, width in ((a, 5), (b, 6)):
        geometry = Geometry(shape=(1, 4, width), spacing=(999.0, 1.0, 1.0), leading="single")
        format_of(path).write_label(np.ones((1, 4, width), np.uint8), geometry, path)
    with pytest.raises(DataError, match=r"b\.\S+ has \(1, 4, 6\) voxels"):
        format_of(a).read([a, b])


def test_no_two_formats_claim_one_ending() -> None:
    formats: list[ImageFormat] = [IMAGE_FORMATS.get(name) for name in IMAGE_FORMATS.names()]
    endings = [ending for image_format in formats for ending in image_format.suffixes]
    assert len(endings) == len(set(endings)) == len(ENDINGS)
    assert all(split_ending(f"a{ending.upper()}") == ("a", ending.upper()) for ending in endings)
