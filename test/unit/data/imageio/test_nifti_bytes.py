import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio.nifti import SimpleITKFormat
from nnunetlike.data.imageio.nifti_bytes import plain_voxels, with_shape

TURNED = (0.0, -1.0, 0.0, 0.6, 0.0, -0.8, 0.8, 0.0, 0.6)
TYPES = ("uint8", "int16", "uint16", "int32")


def _geometry(shape: tuple[int, int, int]) -> Geometry:
    return Geometry(
        shape=shape, spacing=(2.5, 0.7, 0.73), origin=(1.1, -200.0, 3.3),
        direction=TURNED, leading="space",
    )  # fmt: skip


def _itk(voxels: np.ndarray, path: Path) -> Path:
    image, geometry = sitk.GetImageFromArray(voxels), _geometry(voxels.shape)
    image.SetSpacing(geometry.itk_spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    sitk.WriteImage(image, str(path))
    return path


def _numbers(kind: str, shape: tuple[int, ...] = (3, 4, 5)) -> np.ndarray:
    return np.random.RandomState(0).uniform(0, 90, shape).astype(kind)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(3, 4, 5), (1, 4, 5), (1, 1, 1)])
def test_a_written_label_has_the_bytes_that_itk_would_write(
    tmp_path: Path, kind: str, shape: tuple[int, int, int]
) -> None:
    label = _numbers(kind, shape)
    SimpleITKFormat().write_label(label, _geometry(shape), tmp_path / "ours.nii.gz")
    theirs = _itk(label, tmp_path / "theirs.nii.gz")
    assert gzip.decompress((tmp_path / "ours.nii.gz").read_bytes()) == gzip.decompress(
        theirs.read_bytes()
    )


def test_a_label_that_is_not_packed_has_the_same_bytes_too(tmp_path: Path) -> None:
    label = _numbers("uint8")
    SimpleITKFormat().write_label(label, _geometry(label.shape), tmp_path / "ours.nii")
    theirs = _itk(label, tmp_path / "theirs.nii")
    assert (tmp_path / "ours.nii").read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize("kind", [*TYPES, "float32", "float64"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_plain_voxels_and_their_grid_are_those_of_itk(
    tmp_path: Path, kind: str, ending: str
) -> None:
    path = _itk(_numbers(kind), tmp_path / f"case{ending}")
    image = sitk.ReadImage(str(path))
    assert np.array_equal(plain_voxels(path), sitk.GetArrayFromImage(image))
    _, geometry = SimpleITKFormat().read([path])
    assert geometry.itk_spacing == image.GetSpacing()
    assert (geometry.origin, geometry.direction) == (image.GetOrigin(), image.GetDirection())


def test_voxels_in_the_other_byte_order_are_turned(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    voxels = _numbers("int16")
    nibabel.save(nibabel.Nifti1Image(voxels.T, np.eye(4), header), tmp_path / "case.nii.gz")
    found = plain_voxels(tmp_path / "case.nii.gz")
    assert found.dtype == np.int16
    assert np.array_equal(found, voxels)


def test_scaled_values_are_not_plain_but_read(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4))
    image.header.set_slope_inter(2, 1)
    path = tmp_path / "case.nii.gz"
    nibabel.save(image, path)
    assert plain_voxels(path) is None
    voxels, _ = SimpleITKFormat().read([path])
    assert np.array_equal(voxels[0].T, nibabel.load(path).get_fdata())


def test_a_file_packed_in_two_streams_is_not_plain_but_read(tmp_path: Path) -> None:
    voxels = _numbers("int16")
    content = _itk(voxels, tmp_path / "case.nii").read_bytes()
    path = tmp_path / "double" / "case.nii.gz"
    path.parent.mkdir()
    path.write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert plain_voxels(path) is None
    assert np.array_equal(SimpleITKFormat().read([path])[0][0], voxels)


@pytest.mark.parametrize("flaw", ["short", "noise"])
def test_a_damaged_file_is_not_plain(tmp_path: Path, flaw: str) -> None:
    path = _itk(_numbers("int16", (9, 9, 9)), tmp_path / "case.nii.gz")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle:] = b"" if flaw == "short" else b"\xff" * (len(content) - middle)
    path.write_bytes(content)
    assert plain_voxels(path) is None


def test_a_label_that_was_read_may_be_changed(tmp_path: Path) -> None:
    path = _itk(_numbers("uint8"), tmp_path / "case.nii.gz")
    label, _ = SimpleITKFormat().read_label(path)
    label[0, 0, 0] = 7
    assert label[0, 0, 0] == 7


def test_a_head_for_another_shape_differs_in_the_lengths_alone() -> None:
    head = nibabel.Nifti1Header().binaryblock + b"abcd"
    other = with_shape(head, nibabel.Nifti1Header, (5, 4, 3))
    header = nibabel.Nifti1Header(other[:348])
    assert header["dim"].tolist()[1:4] == [5, 4, 3]
    assert other[:42] + other[48:] == head[:42] + head[48:]
    assert other.endswith(b"abcd")
