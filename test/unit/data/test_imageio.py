from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.errors import DataError
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import IMAGE_FORMATS, ending_in, format_of, split_ending

GEOMETRY = Geometry(
    shape=(3, 4, 5),
    spacing=(3.0, 1.5, 0.5),
    origin=(1.0, -2.0, 7.0),
    direction=(0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0),
)
LABEL = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_label_survives_a_file_with_its_geometry(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    image_format = format_of(path)
    image_format.write_label(LABEL, GEOMETRY, path)
    label, geometry = image_format.read_label(path)
    assert np.array_equal(label, LABEL) and label.dtype == np.uint8
    assert geometry.shape == GEOMETRY.shape
    assert np.allclose(geometry.spacing, GEOMETRY.spacing)
    assert np.allclose(geometry.origin, GEOMETRY.origin)
    assert np.allclose(geometry.direction, GEOMETRY.direction)
    assert sitk.ReadImage(str(path)).GetPixelIDValue() == sitk.sitkUInt8


def test_channels_are_stacked_in_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"a_000{i}.nii.gz" for i in range(2)]
    for i, path in enumerate(paths):
        format_of(path).write_label(LABEL + np.uint8(i), GEOMETRY, path)
    image, _ = format_of(paths[0]).read(paths)
    assert image.shape == (2, 3, 4, 5) and image.dtype == np.float32
    assert np.array_equal(image[1], image[0] + 1)


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"
    format_of(a).write_label(LABEL, GEOMETRY, a)
    format_of(b).write_label(LABEL[:2], GEOMETRY, b)
    with pytest.raises(DataError, match=r"b\.nii\.gz has \(2, 4, 5\) voxels"):
        format_of(a).read([a, b])


def test_label_values_off_by_rounding_are_rounded(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 2, 2), 0.99998, np.float32)), str(path))
    label, _ = format_of(path).read_label(path)
    assert label.dtype.kind == "i" and np.all(label == 1)


def test_a_label_of_fractions_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 2, 2), 0.5, np.float32)), str(path))
    with pytest.raises(DataError, match=r"found 0\.5"):
        format_of(path).read_label(path)


def test_float_files_of_integers_are_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.full((2, 2, 2), 3, np.float32)), str(path))
    label, _ = format_of(path).read_label(path)
    assert np.issubdtype(label.dtype, np.integer) and (label == 3).all()


def test_a_2d_file_is_one_slice(tmp_path: Path) -> None:
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5), np.uint8)), str(path))
    image, geometry = format_of(path).read([path])
    assert image.shape == (1, 1, 4, 5) and geometry.leading == "single"
    assert geometry.spacing[0] == 999.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("none.nii.gz", None, "does not exist"), ("bad.nii.gz", b"no image", "cannot be read")],
)
def test_unreadable_files_are_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=f"{name} {message}"):
        format_of(path).read([path])


def test_an_unknown_suffix_lists_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"\.nii\.gz.*\.nrrd"):
        format_of(Path("a.xyz"))


def test_every_format_names_its_suffixes() -> None:
    for name in IMAGE_FORMATS.names():
        assert all(suffix.startswith(".") for suffix in IMAGE_FORMATS.get(name).suffixes)


def test_the_ending_of_a_folder_is_that_of_its_volumes_not_of_pictures_beside_them(
    tmp_path: Path,
) -> None:
    assert ending_in(tmp_path) == ".nii.gz"
    for name in ("a.png", "b.png", "summary.json", ".c.nii.gz"):
        (tmp_path / name).touch()
    assert ending_in(tmp_path) == ".png"
    (tmp_path / "a.nii.gz").touch()
    assert ending_in(tmp_path) == ".nii.gz"


def test_names_are_split_before_the_longest_ending() -> None:
    assert split_ending("a.b.nii.gz") == ("a.b", ".nii.gz")
    assert split_ending("a.PNG") == ("a", ".PNG")
    assert split_ending("notes.txt") == ("notes.txt", "")


def test_4d_with_one_channel_is_a_volume(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    volume = sitk.GetImageFromArray(np.ones((1, 2, 3, 4), np.uint8), isVector=False)
    sitk.WriteImage(volume, str(path))
    assert format_of(path).read([path])[0].shape == (1, 2, 3, 4)
    assert format_of(path).read_label(path)[0].shape == (2, 3, 4)


def test_several_values_per_voxel_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((2, 3, 4, 2), np.uint8), isVector=True), path)
    with pytest.raises(DataError, match="2 values per voxel"):
        format_of(path).read([path])
