"""A case on its way to the network, on arrays small enough to follow."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.errors import PlanError, ShapeError
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.record import CaseRecord
from nnunetlike.plans.fingerprint import ChannelIntensities, Fingerprint, IntensityStatistics
from nnunetlike.plans.plans import Plans, StagePlan
from nnunetlike.plans.topology import Topology
from nnunetlike.preprocessing.cropping import Cropped
from nnunetlike.preprocessing.preprocessor import Preprocessor, read_and_crop, resampled_shape


def plans(**changes: object) -> Plans:
    stage = StagePlan(
        spacing=(4.0, 1.0, 1.0),
        original_spacing=(4.0, 1.0, 1.0),
        median_shape=(4, 8, 8),
        patch_size=(4, 8, 8),
        batch_size=2,
        dummy_2d_augmentation=False,
        topology=Topology.of([[1, 2, 2]], [[3, 3, 3]] * 2),
        num_pool_per_axis=(0, 1, 1),
    )
    made = Plans(
        modalities={0: "MRI"},
        normalization_schemes={0: "noNorm"},
        use_mask_for_norm={0: False},
        classes=(1,),
        base_features=32,
        conv_per_stage=2,
        transpose_forward=(2, 0, 1),
        transpose_backward=(1, 2, 0),
        data_identifier="data",
        stages={0: stage},
        preprocessor_name="GenericPreprocessor",
        fingerprint=Fingerprint(
            sizes=(),
            spacings=(),
            classes=(1,),
            modalities={0: "MRI"},
            intensities=None,
            size_reductions={},
        ),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def case(spacing: tuple[float, float, float] = (1.0, 1.0, 4.0)) -> tuple[Cropped, CaseRecord]:
    """Axes (6, 8, 4) with the coarse one last, as the file has them."""
    image = np.arange(192, dtype=np.float32).reshape(1, 6, 8, 4)
    label = np.zeros((6, 8, 4), np.int16)
    label[2:4, 3:5, 1] = 1
    box = ((0, 6), (0, 8), (0, 4))
    record = CaseRecord(
        original_size=(6, 8, 4),
        original_spacing=spacing,
        image_files=(),
        label_file=None,
        itk_origin=(0, 0, 0),
        itk_spacing=(spacing[2], spacing[1], spacing[0]),
        itk_direction=(1, 0, 0, 0, 1, 0, 0, 0, 1),
        crop_box=box,
        classes=(0.0, 1.0),
        size_after_cropping=(6, 8, 4),
    )
    return Cropped(image=image, label=label, box=box), record


def test_a_case_at_the_target_spacing_is_transposed_only() -> None:
    cropped, record = case()
    prepared = Preprocessor(plans(), 0).apply(cropped, record)
    assert np.array_equal(prepared.image, cropped.image.transpose(0, 3, 1, 2))
    assert np.array_equal(prepared.label, cropped.label.transpose(2, 0, 1))
    assert prepared.image.dtype == np.float32 and prepared.label.dtype == np.int16
    assert prepared.record.size_after_resampling == (4, 6, 8)
    assert prepared.record.spacing_after_resampling == (4.0, 1.0, 1.0)
    assert prepared.record.use_nonzero_mask == {0: False}


def test_locations_are_voxels_of_the_prepared_label() -> None:
    prepared = Preprocessor(plans(), 0).apply(*case())
    assert prepared.record.class_locations is not None
    found = prepared.record.class_locations[1]
    assert len(found) == 4
    assert (prepared.label[tuple(found.T)] == 1).all()


def test_prediction_needs_no_locations() -> None:
    prepared = Preprocessor(plans(), 0).apply(*case(), sample_classes=False)
    assert prepared.record.class_locations is None


def test_a_2d_network_keeps_the_slices_of_each_case() -> None:
    cropped, record = case((1.5, 1.0, 7.0))
    prepared = Preprocessor(plans(preprocessor_name="PreprocessorFor2D"), 0).apply(cropped, record)
    assert prepared.record.spacing_after_resampling == (7.0, 1.0, 1.0)
    assert prepared.image.shape == (1, 4, 9, 8)
    assert Preprocessor(plans(), 0).apply(cropped, record).image.shape == (1, 7, 9, 8)


def test_voxels_that_are_not_numbers_become_zero_and_the_case_is_not_changed() -> None:
    cropped, record = case()
    cropped.image[0, 0, 0, 0] = np.nan
    prepared = Preprocessor(plans(), 0).apply(cropped, record)
    assert prepared.image[0, 0, 0, 0] == 0
    assert np.isfinite(prepared.image).all()
    assert np.isnan(cropped.image[0, 0, 0, 0])


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_voxels_that_are_not_finite_count_as_zero_and_their_file_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ending: str
) -> None:
    voxels = np.ones((3, 4, 5), np.float32)
    spoilt = voxels.copy()
    spoilt[0, 0, :2] = np.nan, np.inf
    paths = (tmp_path / f"a_0000{ending}", tmp_path / f"a_0001{ending}")
    for array, path in zip((voxels, spoilt), paths, strict=True):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    cropped, _ = read_and_crop(CaseFiles(case_id="a", images=paths))
    assert (cropped.image[1, 0, 0, :2] == 0).all() and cropped.image.sum() == 118
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"a_0001{ending}: 2 of 60 voxels are NaN or infinite and count as 0" in caplog.text


def test_half_voxels_are_rounded_to_even() -> None:
    assert resampled_shape((5, 7, 9), (1, 1, 1), (2, 2, 2)) == (2, 4, 4)


def test_a_stage_that_is_not_planned_is_refused() -> None:
    with pytest.raises(PlanError, match="no stage 1"):
        Preprocessor(plans(), 1)


def test_an_unknown_preprocessor_is_refused() -> None:
    with pytest.raises(PlanError, match="'Other'; known are GenericPreprocessor"):
        Preprocessor(plans(preprocessor_name="Other"), 0)


def write(voxels: np.ndarray, path: Path) -> Path:
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((1.0, 2.0, 3.0))
    sitk.WriteImage(image, str(path))
    return path


def test_reading_crops_to_the_image_and_remembers_the_way_back(tmp_path: Path) -> None:
    voxels = np.zeros((6, 7, 8), np.int16)
    voxels[1:4, 2:6, 3:8] = 5
    voxels[2, 3, 4] = 0  # a hole is filled
    label = np.zeros((6, 7, 8), np.uint8)
    label[2, 3:5, 4:6] = 2
    image = write(voxels, tmp_path / "a_0000.nii.gz")
    files = CaseFiles(case_id="a", images=(image,), label=write(label, tmp_path / "a.nii.gz"))
    cropped, record = read_and_crop(files)
    assert cropped.image.shape == (1, 3, 4, 5) and cropped.label.shape == (3, 4, 5)
    assert record.crop_box == ((1, 4), (2, 6), (3, 8))
    assert record.original_size == (6, 7, 8)
    assert record.original_spacing == (3.0, 2.0, 1.0)
    assert record.itk_spacing == (1.0, 2.0, 3.0)
    assert record.classes == (0.0, 2.0)
    assert record.size_reduction == 60 / 336


def test_without_a_label_the_inside_is_zero(tmp_path: Path) -> None:
    voxels = np.zeros((5, 5, 5), np.int16)
    voxels[1:4, 1:4, 1:4] = 5
    voxels[1, 1, 1] = 0
    files = CaseFiles(case_id="a", images=(write(voxels, tmp_path / "a_0000.nii.gz"),))
    cropped, record = read_and_crop(files)
    assert record.label_file is None
    assert record.classes == (-1.0, 0.0)
    assert cropped.label[0, 0, 0] == -1 and (cropped.label == 0).sum() == 26


def test_a_label_of_another_size_is_refused(tmp_path: Path) -> None:
    image = write(np.ones((5, 5, 5), np.int16), tmp_path / "a_0000.nii.gz")
    label = write(np.ones((4, 5, 5), np.uint8), tmp_path / "a.nii.gz")
    with pytest.raises(ShapeError, match=r"a: the label has \(4, 5, 5\) voxels"):
        read_and_crop(CaseFiles(case_id="a", images=(image,), label=label))


def test_v2_normalises_before_it_resamples_and_v1_after() -> None:
    """Voxels 1 and 9 along W, clipped to at most 5, on a grid twice as fine: hand-derived."""
    window = IntensityStatistics(
        median=0, mean=0, sd=1, mn=0, mx=9, percentile_00_5=0, percentile_99_5=5
    )
    known = {0: ChannelIntensities(overall=window, by_case={})}
    linear = {"interpolation_order": 1, "interpolation_order_z": 0, "force_separate_z": False}
    base = plans()
    made = replace(
        base,
        normalization_schemes={0: "CT"},
        transpose_forward=(0, 1, 2),
        transpose_backward=(0, 1, 2),
        stages={0: replace(base.stages[0], spacing=(1.0, 1.0, 0.5))},
        fingerprint=replace(base.fingerprint, intensities=known),
        extra={"image_resampling_params": linear},
    )
    image = np.array([1, 9], np.float32).reshape(1, 1, 1, 2)
    cropped = Cropped(image, np.zeros((1, 1, 2), np.int16), ((0, 1), (0, 1), (0, 2)))
    record = replace(case()[1], original_spacing=(1.0, 1.0, 1.0), original_size=(1, 1, 2))
    found = Preprocessor(replace(made, conventions="v2"), 0).apply(cropped, record)
    assert np.allclose(found.image.ravel(), [1, 2, 4, 5])  # of 1 and 5
    after = Preprocessor(replace(made, extra={}), 0).apply(cropped, record)
    assert after.image.max() == 5 and not np.allclose(after.image.ravel(), [1, 2, 4, 5])
