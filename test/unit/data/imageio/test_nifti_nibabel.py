"""NIfTI that SimpleITK refuses or mistakes."""

from __future__ import annotations

import gzip
import logging
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.errors import DataError
from nnunetlike.data.imageio import format_of

VOXELS = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
"""x, y, z."""

AFFINE = np.array(
    [[-0.7, 0.0, 0.0, 31.25], [0.0, 0.0, 2.5, -7.0], [0.0, 0.9, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]]
)


def sheared(path: Path, shear: float, kind: Any = nibabel.Nifti1Image) -> Path:
    affine = AFFINE.copy()
    affine[0, 1] += shear
    image = kind(VOXELS, None)
    image.set_sform(affine, 2)
    image.header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
    nibabel.save(image, path)
    return path


def predicted(source: Path, target: Path) -> Any:
    """Write a label for `source` as export does, and return what nibabel sees."""
    label, geometry = format_of(source).read_label(source)
    format_of(target).write_label(label.astype(np.uint8), geometry, target, like=source)
    return nibabel.load(target)


@pytest.mark.parametrize("shear", [1e-4, 1e-2])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_sheared_axes_load_and_the_prediction_has_the_affine_bit_for_bit(
    tmp_path: Path, shear: float, ending: str
) -> None:
    source = sheared(tmp_path / f"a{ending}", shear)
    image, geometry = format_of(source).read([source])
    assert np.array_equal(image[0], VOXELS.T)
    assert np.allclose(geometry.spacing, (2.5, 0.9, 0.7), rtol=1e-4)
    written = predicted(source, tmp_path / f"b{ending}")
    assert np.array_equal(written.affine, nibabel.load(source).affine)
    assert np.array_equal(np.asanyarray(written.dataobj), VOXELS)
    assert written.get_data_dtype() == np.uint8


def test_refused_axes_become_the_nearest_rotation_and_a_note_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = sheared(tmp_path / "a.nii.gz", 1e-2)
    with pytest.raises(RuntimeError, match="orthonormal"):
        sitk.ReadImage(str(source))
    with caplog.at_level(logging.INFO):
        _, geometry = format_of(source).read([source])
    direction = np.reshape(geometry.direction, (3, 3))
    assert np.allclose(direction @ direction.T, np.eye(3), atol=1e-12)
    assert "a.nii.gz: the axes are not at right angles" in caplog.text
    assert "0.006" in caplog.text


def test_nifti_2_loads_and_its_prediction_is_nifti_2(tmp_path: Path) -> None:
    source = sheared(tmp_path / "a.nii.gz", 0.0, nibabel.Nifti2Image)
    image, geometry = format_of(source).read([source])
    assert np.array_equal(image[0], VOXELS.T) and np.allclose(geometry.origin, (-31.25, 7, 3))
    written = predicted(source, tmp_path / "b.nii.gz")
    assert isinstance(written, nibabel.Nifti2Image)
    assert np.array_equal(written.affine, nibabel.load(source).affine)


def test_both_readers_agree_where_both_can_read(tmp_path: Path) -> None:
    one, two = (tmp_path / f"{n}.nii.gz" for n in "ab")
    sheared(one, 0.0)
    sheared(two, 0.0, nibabel.Nifti2Image)
    (image_1, grid_1), (image_2, grid_2) = (format_of(p).read([p]) for p in (one, two))
    assert np.array_equal(image_1, image_2) and grid_1.shape == grid_2.shape
    for field in ("spacing", "origin", "direction"):
        assert np.allclose(getattr(grid_1, field), getattr(grid_2, field), atol=1e-6), field


def test_a_file_is_read_itself_not_the_uncompressed_one_beside_it(tmp_path: Path) -> None:
    packed, plain = tmp_path / "x.nii.gz", tmp_path / "x.nii"
    nibabel.save(nibabel.Nifti1Image(VOXELS, AFFINE), packed)
    nibabel.save(nibabel.Nifti1Image(VOXELS + np.int16(100), AFFINE), plain)
    assert sitk.GetArrayFromImage(sitk.ReadImage(str(packed))).max() == 123  # the trap
    assert format_of(packed).read([packed])[0].max() == 23
    assert format_of(packed).read_label(packed)[0].max() == 23
    assert format_of(plain).read([plain])[0].max() == 123


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3), (2, 3, 4, 1)])
def test_not_a_number_stays_so_whoever_reads(
    tmp_path: Path, kind: Any, shape: tuple[int, ...]
) -> None:
    path = tmp_path / "a.nii.gz"
    voxels = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
    voxels.reshape(-1)[[2, 4]] = np.nan, -np.inf
    nibabel.save(kind(voxels, np.eye(4)), path)
    image, _ = format_of(path).read([path])
    assert np.array_equal(image.reshape(-1), voxels.T.reshape(-1), equal_nan=True)


def test_a_label_map_with_nan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    voxels = np.zeros((2, 3, 4), np.float32)
    voxels[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    with pytest.raises(DataError, match=r"a\.nii\.gz: a label map holds integers, but found nan"):
        format_of(path).read_label(path)


def test_a_file_of_two_dimensions_gives_a_prediction_of_two(tmp_path: Path) -> None:
    source = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.ones((4, 5), np.int16)), str(source))
    written = predicted(source, tmp_path / "b.nii.gz")
    assert written.shape == (5, 4)
    label, geometry = format_of(source).read_label(tmp_path / "b.nii.gz")
    assert label.shape == (1, 4, 5) and geometry.spacing[0] == 999


def test_a_header_of_another_shape_is_not_copied(tmp_path: Path) -> None:
    source, target = sheared(tmp_path / "a.nii.gz", 0.0), tmp_path / "b.nii.gz"
    _, geometry = format_of(source).read([source])
    label = np.zeros((2, 2, 2), np.uint8)
    format_of(target).write_label(label, geometry, target, like=source)
    assert format_of(target).read_label(target)[0].shape == (2, 2, 2)


@pytest.mark.parametrize("content", [b"", b"n+1", b"\x1f\x8b\x08\x00"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(content)
    (tmp_path / "x.nii").touch()
    with pytest.raises(DataError, match=r"x\.nii\.gz cannot be read"):
        format_of(path).read([path])


def test_axes_without_length_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    image = nibabel.Nifti2Image(VOXELS, None)
    image.set_sform(np.diag([0.0, 1, 1, 1]), 2)
    nibabel.save(image, path)
    with pytest.raises(DataError, match="no usable axes"):
        format_of(path).read([path])


def test_nifti_2_of_others_is_read(shared: Path) -> None:
    folder = shared / "data/nibabel_readers"
    with pytest.raises(DataError, match=r"32, 20, 12, 2"):
        format_of(Path("a.nii.gz")).read([folder / "example_nifti2.nii.gz"])
    image, _ = format_of(Path("a.nii")).read([folder / "anatomical.nii"])
    assert image.shape == (1, 25, 41, 33)


@pytest.mark.parametrize("name", ["t2/t2", "t2s/t2s", "t1/t1w", "mt/mtr"])
def test_predictions_on_public_images_have_their_affine_bit_for_bit(
    shared: Path, tmp_path: Path, name: str
) -> None:
    source = shared / f"data/sct_spinalcord/{name}.nii.gz"
    image, geometry = format_of(source).read([source])
    target = tmp_path / "label.nii.gz"
    format_of(target).write_label((image[0] > 0).astype(np.uint8), geometry, target, like=source)
    written, original = nibabel.load(target), nibabel.load(source)
    assert np.array_equal(written.affine, original.affine)
    for field in ("qform_code", "sform_code", "pixdim", "quatern_b", "srow_x"):
        assert np.array_equal(written.header[field], original.header[field]), field
    again = format_of(target).read_label(target)
    assert np.array_equal(again[0], image[0] > 0) and again[1] == geometry


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_file_cut_short_is_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    voxels = np.random.default_rng(0).integers(0, 255, (16, 16, 16), np.uint8)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    path.write_bytes(path.read_bytes()[:2000])
    sitk.ReadImage(str(path))  # reads zeros for what is missing
    with pytest.raises(DataError, match=rf"a{ending} is cut short: it ends before the 4448"):
        format_of(path).read([path])


def test_a_file_packed_in_several_parts_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    content = nibabel.Nifti1Image(VOXELS, AFFINE).to_bytes()
    path.write_bytes(gzip.compress(content[:370]) + gzip.compress(content[370:]))
    assert np.array_equal(format_of(path).read([path])[0][0], VOXELS.T)
