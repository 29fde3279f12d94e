"""Videos on their way to the network: read, crop, resample, normalise. Axes: C, T, H, W."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.core.errors import DataError, ShapeError
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.labels import LabelSet
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.video import VideoFacts
from nnunetlike.experiment_planning.planners import VIDEO_PLANNERS
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.cropping import Cropped
from nnunetlike.preprocessing.preprocessor import Preprocessor, read_and_crop

LABELS = LabelSet({0: "background", 1: "LV", 2: "ignore"}, ignore=2)
FACTS = VideoFacts(patient="p", labelled_frames=(0, 4), ed=0, es=4, fps=50.0)
SIZE = (40, 36)


def video() -> tuple[np.ndarray, np.ndarray]:
    """Five frames (T, H, W) of 40 x 36 whose sector is 24 x 20, and their label map."""
    rng = np.random.default_rng(0)
    image = np.zeros((5, *SIZE), np.float32)
    image[:, 8:32, 6:26] = rng.uniform(50, 200, (5, 24, 20))
    image[:, 8:14, 6:12] = 0  # the sector's corner
    label = np.full((5, *SIZE), 2, np.uint8)
    label[[0, 4]] = 0
    label[[0, 4], 16:24, 12:20] = 1
    return image, label


def write(array: np.ndarray, path: Path) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.25, 0.02))
    sitk.WriteImage(image, str(path))
    return path


def case(folder: Path, label: np.ndarray | None, facts: VideoFacts = FACTS) -> CaseFiles:
    image = write(video()[0], folder / "p_0000.nii.gz")
    return CaseFiles(
        case_id="p_2CH",
        images=(image,),
        label=None if label is None else write(label, folder / "p.nii.gz"),
        video=facts,
        labels=LABELS,
    )


def plans(spacing: float = 0.5) -> Plans:
    fingerprint = Fingerprint(
        sizes=((5, 24, 20),),
        spacings=((999, spacing, spacing),),
        classes=(1,),
        modalities={0: "US"},
        intensities=None,
        size_reductions={"p_2CH": 0.3},
        videos=(FACTS,),
    )
    return VIDEO_PLANNERS.get("ExperimentPlanner_Video2D").plan(fingerprint)


def test_a_video_is_read_with_its_facts_and_no_spacing_in_time(tmp_path: Path) -> None:
    cropped, record = read_and_crop(case(tmp_path, video()[1]))
    assert record.video == FACTS and record.crop_box == ((0, 5), (8, 32), (6, 26))
    assert record.original_spacing == (999, 0.25, 0.5)
    assert record.itk_spacing == pytest.approx((0.5, 0.25, 0.02))
    assert record.original_size == (5, 40, 36) and cropped.image.shape == (1, 5, 24, 20)
    assert CaseRecord.from_v1(record.to_v1()) == record


def test_a_new_video_needs_neither_label_nor_labelled_frames(tmp_path: Path) -> None:
    facts = VideoFacts(patient="p_2CH", labelled_frames=())
    cropped, record = read_and_crop(case(tmp_path, None, facts))
    assert record.label_file is None and set(np.unique(cropped.label)) == {-1, 0}


def test_time_is_never_resampled_and_frames_without_a_label_stay_whole(tmp_path: Path) -> None:
    prepared = Preprocessor(plans(0.2), 0).apply(*read_and_crop(case(tmp_path, video()[1])))
    assert prepared.image.shape == (1, 5, 30, 50) and prepared.record.video == FACTS
    assert prepared.record.spacing_after_resampling == (999, 0.2, 0.2)
    assert (prepared.label[1:4] == 2).all()
    assert set(np.unique(prepared.label[[0, 4]])) == {-1, 0, 1}
    assert prepared.record.class_locations is not None
    assert set(prepared.record.class_locations) == {1}
    assert set(prepared.record.class_locations[1][:, 0].tolist()) == {0, 4}


def test_the_sector_is_standardised_and_all_else_is_zero_in_every_frame(tmp_path: Path) -> None:
    cropped, record = read_and_crop(case(tmp_path, video()[1]))
    record = replace(record, original_spacing=(999, 0.5, 0.5))
    image = Preprocessor(plans(), 0).apply(cropped, record).image[0]
    outside = image[:, :6, :6]
    inside = np.ones((24, 20), bool)
    inside[:6, :6] = False
    assert (outside == 0).all()
    assert abs(image[:, inside].mean()) < 1e-5 and abs(image[:, inside].std() - 1) < 1e-5


def test_labels_never_change_the_image(tmp_path: Path) -> None:
    cropped, record = read_and_crop(case(tmp_path, video()[1]))
    unlabelled = Cropped(cropped.image, np.zeros_like(cropped.label), cropped.box)
    images = [
        Preprocessor(plans(0.2), 0).apply(found, record).image for found in (cropped, unlabelled)
    ]
    assert (images[0] == images[1]).all()


def test_a_label_of_another_length_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match=r"p_2CH: the label has \(4, 40, 36\) voxels \(T, H, W\)"):
        read_and_crop(case(tmp_path, video()[1][:4]))


def test_a_strange_value_is_refused_with_case_frames_and_value(tmp_path: Path) -> None:
    label = video()[1]
    label[4, 3, 3] = 255
    with pytest.raises(DataError, match=r"p_2CH: the label map holds 255 in frame 4, but"):
        read_and_crop(case(tmp_path, label))


def test_facts_that_contradict_the_label_are_refused(tmp_path: Path) -> None:
    facts = replace(FACTS, labelled_frames=(0, 9), es=7)
    with pytest.raises(DataError, match=r"p_2CH: ES is frame 7.*names 9.*lacks frame 4"):
        read_and_crop(case(tmp_path, video()[1], facts))
