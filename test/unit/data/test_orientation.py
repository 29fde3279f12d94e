"""Letters of axes, and arrays turned by them."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.errors import DataError
from nnunetlike.data.geometry import IDENTITY
from nnunetlike.data.imageio import format_of
from nnunetlike.data.orientation import (
    AS_STORED,
    SIDES,
    Turn,
    direction_of,
    is_orientation,
    orientation_of,
)
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.video import VideoFacts

ALL = ["".join(letters) for sides in permutations(SIDES) for letters in product(*sides)]
RECORD = CaseRecord(
    original_size=(4, 5, 6), original_spacing=(3.0, 2.0, 1.0), image_files=("a_0000.nii.gz",),
    label_file=None, itk_origin=(0.0,) * 3, itk_spacing=(1.0, 2.0, 3.0),
    itk_direction=direction_of("RAS"), crop_box=((0, 4), (0, 5), (0, 6)), classes=(0.0,),
    size_after_cropping=(4, 5, 6),
)  # fmt: skip


SINGULAR = (
    b"ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = 1 0 0 1 0 0 0 0 1\n"
    b"ElementSpacing = 1 1 1\nDimSize = 2 2 2\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
)
"""MetaImage whose axes x and y are one."""


def image(orientation: str = "LPS") -> sitk.Image:
    """Return an image (D, H, W) = (4, 5, 6) whose axes point so."""
    found = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=(4, 5, 6)))
    found.SetSpacing((1.0, 2.0, 3.0))
    found.SetOrigin((3.0, -7.0, 11.0))
    found.SetDirection(direction_of(orientation))
    return found


def test_orientation_names_where_the_axes_point() -> None:
    assert orientation_of(IDENTITY) == "LPS"
    assert orientation_of((0.0, 0, -1, -0.9, 0.1, 0, 0, 1, 0)) == "ASR"


def test_there_are_48_orientations_and_directions_lead_back_to_each() -> None:
    assert len(set(ALL)) == 48
    assert all(orientation_of(direction_of(letters)) == letters for letters in ALL)


def test_letters_are_those_of_nibabel_and_simpleitk(tmp_path: Path) -> None:
    name = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines
    path = tmp_path / "a.nii.gz"
    for letters in ALL:
        assert name(direction_of(letters)) == letters
    for letters in ("LPS", "RAS", "PSR"):
        sitk.WriteImage(image(letters), str(path))
        assert "".join(nibabel.aff2axcodes(nibabel.load(path).affine)) == letters
        assert format_of(path).orientation(path) == letters


@pytest.mark.parametrize("angle", [10, 44.9, 45])
def test_no_two_axes_of_an_oblique_image_share_a_letter(angle: float) -> None:
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    found = orientation_of((about_x @ about_z).ravel().tolist())
    assert is_orientation(found) and (angle > 40 or found == "LPS")


@pytest.mark.parametrize("direction", [(0.0,) * 9, (float("nan"),) * 9, (1.0, 1, 0) * 3])
def test_axes_that_do_not_span_space_have_no_letters(direction: tuple[float, ...]) -> None:
    assert orientation_of(direction) is None


@pytest.mark.parametrize("value", ["", "LP", "LPX", "LRS", "lps", "LPSS", 5, None])
def test_what_is_no_orientation_is_told(value: object) -> None:
    assert not is_orientation(value)


def test_a_turn_between_what_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="'LRS' is no orientation"):
        Turn("LPS", "LRS")


@pytest.mark.parametrize("source", ALL)
def test_an_array_is_turned_as_simpleitk_turns_it(source: str) -> None:
    stored = image(source)
    turned = sitk.DICOMOrient(stored, "PSR")
    turn = Turn(source, "PSR")
    array = sitk.GetArrayFromImage(stored)
    found = turn.apply(array)
    assert np.array_equal(found, sitk.GetArrayFromImage(turned)) and found.flags.c_contiguous
    assert turn.order(stored.GetSpacing()[::-1]) == turned.GetSpacing()[::-1]
    assert np.array_equal(turn.back.apply(found), array)
    assert np.array_equal(turn.apply(np.stack([array, array]))[1], found)


def test_what_need_not_be_turned_is_left_as_it_is() -> None:
    array = np.zeros((2, 3, 4))
    assert Turn("RAS", "RAS").apply(array) is array
    assert AS_STORED.order((1, 2, 3)) == (1, 2, 3)


def test_a_record_keeps_its_turn_and_those_without_have_no_further_key() -> None:
    turned = replace(RECORD, turn=Turn("RAS", "LPS"))
    assert CaseRecord.from_v1(turned.to_v1()).turn == Turn("RAS", "LPS")
    assert "turned" not in RECORD.to_v1()
    assert CaseRecord.from_v1(RECORD.to_v1()).turn == AS_STORED


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "RAS"),
        ({"image_files": ()}, "RAS"),
        ({"image_files": ("a_0000.tif",)}, None),
        ({"image_files": ("a_0000.png",)}, None),
        ({"original_size": (1, 5, 6)}, None),
        ({"video": VideoFacts(patient="a", labelled_frames=())}, None),
    ],
)
def test_slices_videos_and_formats_without_directions_have_no_orientation(
    change: dict[str, object], expected: str | None
) -> None:
    assert replace(RECORD, **change).orientation == expected  # type: ignore[arg-type]  # by name


def test_headers_of_files_that_simpleitk_refuses_tell_too(tmp_path: Path) -> None:
    skewed = np.diag([-2.0, -2.0, 3.0, 1.0])
    skewed[0, 1] = 0.3
    for name, kind, affine in (
        ("skewed.nii.gz", nibabel.Nifti1Image, skewed),
        ("second.nii", nibabel.Nifti2Image, np.diag([2.0, 2.0, 3.0, 1.0])),
    ):
        nibabel.save(kind(np.ones((3, 4, 5), np.float32), affine), tmp_path / name)
    assert format_of(tmp_path / "a.nii.gz").orientation(tmp_path / "skewed.nii.gz") == "LPS"
    assert format_of(tmp_path / "a.nii").orientation(tmp_path / "second.nii") == "RAS"


def test_headers_of_slices_and_damaged_files_tell_nothing(tmp_path: Path) -> None:
    flat, bad = tmp_path / "flat.nii.gz", tmp_path / "bad.nii.gz"
    sitk.WriteImage(image()[:, :, :1], str(flat))
    bad.write_bytes(b"no image")
    (tmp_path / "flat.mha").write_bytes(SINGULAR + bytes(8))
    others = ("flat.mha", "missing.nii.gz", "missing.mha", "a.png")
    for path in (flat, bad, *(tmp_path / name for name in others)):
        assert format_of(path).orientation(path) is None
