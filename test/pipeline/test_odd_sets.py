"""Small and odd data sets through the commands: each ends in a summary or in one clear sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.data.splits import load_splits
from nnunetlike.run import plan_and_preprocess, predict, run_training

TASK = "Task701_Odd"
SHAPE = (12, 20, 24)
TRAINING = (
    "--epochs=1", "--iterations=2", "--val_iterations=1", "--num_workers=0", "--seed=1",
    "--device=cpu", "--fp32", "--base_num_features=2",
)  # fmt: skip
PREDICTION = ("--device=cpu", "--num_threads_preprocessing=0", "--num_threads_nifti_save=0")
Case = tuple[Sequence[np.ndarray], np.ndarray]


def case(
    seed: int,
    shape: tuple[int, int, int] = SHAPE,
    *,
    channels: int = 1,
    classes: Sequence[int] = (1,),
) -> Case:
    """Noise with one bright block per class, side by side along the last axis."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8)
    depth, height, width = (slice(n // 4, max(n // 4 + 1, 3 * n // 4)) for n in shape)
    step = (width.stop - width.start) // max(1, len(classes))
    for i, value in enumerate(classes):
        start = width.start + i * step
        label[depth, height, start : start + max(1, step)] = value
    images = [rng.normal(100, 10, shape).astype(np.float32) + 50 * label for _ in range(channels)]
    return images, label


class Task:
    """A raw task and the commands on it."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.raw = home / "raw" / "nnUNet_raw_data" / TASK
        self._capsys = capsys
        self.said = ""

    def write(
        self,
        cases: Mapping[str, Case],
        *,
        modalities: Sequence[str] = ("MR",),
        labels: int = 2,
        spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
        as_4d: bool = False,
    ) -> None:
        for case_id, (images, label) in cases.items():
            for number, voxels in enumerate(images):
                path = self.raw / "imagesTr" / f"{case_id}_{number:04d}.nii.gz"
                self._write(voxels, path, spacing, as_4d=as_4d)
            self._write(label, self.raw / "labelsTr" / f"{case_id}.nii.gz", spacing)
        content = {
            "name": "Odd",
            "modality": {str(i): name for i, name in enumerate(modalities)},
            "labels": {str(i): f"label {i}" for i in range(labels)},
            "numTraining": len(cases),
            "numTest": 0,
            "training": [
                {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"}
                for c in cases
            ],
            "test": [],
        }
        (self.raw / "dataset.json").write_text(json.dumps(content))

    def _write(
        self,
        voxels: np.ndarray,
        path: Path,
        spacing: tuple[float, float, float],
        *,
        as_4d: bool = False,
    ) -> None:
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(spacing[::-1])
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.JoinSeries([image]) if as_4d else image, str(path))

    def plan(self, *options: str) -> int:
        words = ["-t", "701", "-tf", "1", "-tl", "1", "--verify_dataset_integrity", *options]
        return self._status(plan_and_preprocess.main(words))

    def train(self, configuration: str = "3d_fullres", fold: str = "0") -> int:
        words = [configuration, "nnUNetTrainerV2", "701", fold, *TRAINING]
        return self._status(run_training.main(words))

    def predict(self, configuration: str = "3d_fullres", fold: str = "0") -> int:
        where = ["-i", str(self.raw / "imagesTr"), "-o", str(self.home / "predicted")]
        words = [*where, "-t", "701", "-m", configuration, "-f", fold, *PREDICTION]
        return self._status(predict.main(words))

    def dice(self, configuration: str = "3d_fullres", fold: str = "fold_0") -> dict[str, float]:
        """The mean Dice of each label in summary.json."""
        model = self.home / "results/nnUNet" / configuration / TASK
        path = model / "nnUNetTrainerV2__nnUNetPlansv2.1" / fold / "validation_raw/summary.json"
        means = json.loads(path.read_text())["results"]["mean"]
        return {label: row["Dice"] for label, row in means.items()}

    def _status(self, status: int) -> int:
        captured = self._capsys.readouterr()
        self.said = captured.out + captured.err
        return status


@pytest.fixture
def task(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("nnUNet_def_n_proc", "0")
    return Task(home, capsys)


def five(**how: object) -> dict[str, Case]:
    return {f"c{i}": case(i, **how) for i in range(5)}  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 4])
def test_two_to_four_cases_leave_one_out_and_it_is_said(task: Task, count: int) -> None:
    task.write({f"c{i}": case(i) for i in range(count)})
    assert task.plan("-pl2d", "None") == 0
    assert f"{count} cases are too few for 5 folds; made {count} (0 to {count - 1})" in task.said
    assert "Cases by name (ID of ID_0000.nii.gz): c0, c1" in task.said
    assert task.train(fold=str(count - 1)) == 0
    assert not math.isnan(task.dice(fold=f"fold_{count - 1}")["1"])


@pytest.mark.slow
def test_one_case_trains_as_fold_all_only(task: Task) -> None:
    task.write({"c0": case(0)})
    assert task.plan("-pl2d", "None") == 0
    assert "one case cannot be split; train with fold 'all'" in task.said
    assert task.train() == 3
    assert "needs two cases, and there is only c0. Train with fold 'all'" in task.said
    assert task.train(fold="all") == 0
    assert not math.isnan(task.dice(fold="all")["1"])
    assert task.predict(fold="all") == 0


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_a_class_that_the_validation_cases_lack_has_no_dice(task: Task, configuration: str) -> None:
    task.write({f"c{i}": case(i, classes=(1, 2) if i == 4 else (1,)) for i in range(5)}, labels=3)
    assert task.plan() == 0
    assert task.train(configuration) == 0
    assert set(task.dice(configuration)) >= {"1", "2"}


@pytest.mark.slow
def test_a_class_that_occurs_nowhere_is_warned_of_and_left_out_of_the_mean(task: Task) -> None:
    task.write(five(), labels=3)
    assert task.plan("-pl2d", "None") == 0
    assert "declared but occur" in task.said
    assert task.train() == 0
    assert not math.isnan(task.dice()["1"])


@pytest.mark.slow
def test_some_empty_labels_train_and_predict(task: Task) -> None:
    cases = {f"c{i}": case(i, classes=() if i < 2 else (1,)) for i in range(5)}
    task.write(cases, modalities=("CT",))
    assert task.plan("-pl2d", "None") == 0
    assert task.train() == 0
    assert task.dice()
    assert task.predict() == 0
    assert len(list((task.home / "predicted").glob("c*.nii.gz"))) == 5


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_labels_that_are_all_empty_train_without_a_fault(task: Task, configuration: str) -> None:
    task.write(five(classes=()))
    assert task.plan() == 0
    assert "declared but occur" in task.said
    assert task.train(configuration) == 0
    assert "1" in task.dice(configuration)


def test_ct_without_any_foreground_is_refused(task: Task) -> None:
    task.write(five(classes=()), modalities=("CT",))
    assert task.plan() == 3
    assert "a CT is normalised by the intensities under the labels" in task.said


def test_a_task_without_labels_to_learn_is_refused(task: Task) -> None:
    task.write(five(classes=()), labels=1)
    assert task.plan() == 3
    assert "declares no label above 0" in task.said


@pytest.mark.slow
def test_single_slices_are_planned_and_trained_in_2d_only(task: Task) -> None:
    task.write(five(shape=(1, 24, 28)))
    assert task.plan() == 0
    assert task.train("3d_fullres") == 2
    assert "is planned for 2d only" in task.said
    assert task.train("2d") == 0
    assert not math.isnan(task.dice("2d")["1"])
    assert task.predict("2d") == 0


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("small", [(2, 5, 4), (1, 24, 28)])
def test_a_case_smaller_than_the_patch_validates(
    task: Task, configuration: str, small: tuple[int, int, int]
) -> None:
    cases = {f"c{i}": case(i, (16, 32, 32)) for i in range(4)}
    task.write({"a_small": case(9, small), **cases})
    assert task.plan() == 0
    splits = load_splits(task.home / "preprocessed" / TASK / "splits_final.pkl")
    validated = next(i for i, split in enumerate(splits) if "a_small" in split.val)
    for fold in (validated, (validated + 1) % 5):
        assert task.train(configuration, str(fold)) == 0
        assert task.dice(configuration, f"fold_{fold}")


def test_images_too_small_for_any_network_are_refused(task: Task) -> None:
    task.write(five(shape=(3, 5, 6)))
    assert task.plan() == 3
    assert "the median case has (3, 5, 6) voxels after resampling, too few" in task.said


@pytest.mark.slow
def test_a_file_of_four_dimensions_with_one_channel_is_a_volume(task: Task) -> None:
    task.write(five(), as_4d=True)
    assert task.plan("-pl2d", "None") == 0
    assert task.train() == 0
    assert task.dice()


@pytest.mark.slow
def test_one_giant_among_small_cases_trains(task: Task) -> None:
    cases = {f"c{i}": case(i, (10, 16, 16)) for i in range(5)}
    task.write({**cases, "giant": case(9, (24, 64, 64))})
    assert task.plan("-pl2d", "None") == 0
    assert "10 x 16 x 16 to 24 x 64 x 64" in task.said
    assert task.train() == 0
    assert task.dice()


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_anisotropic_volumes_train(task: Task, configuration: str) -> None:
    task.write(five(shape=(6, 30, 30)), spacing=(8.0, 1.0, 1.0))
    assert task.plan() == 0
    assert task.train(configuration) == 0
    assert task.dice(configuration)


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_constant_images_train(task: Task, modality: str) -> None:
    constant = {
        name: ([np.full(SHAPE, 7, np.float32)], label) for name, (_, label) in five().items()
    }
    task.write(constant, modalities=(modality,))
    assert task.plan("-pl2d", "None") == 0
    assert task.train() == 0
    assert task.dice()


def test_an_image_of_zeros_is_named(task: Task) -> None:
    cases = five()
    task.write({**cases, "c3": ([np.zeros(SHAPE, np.float32)], cases["c3"][1])})
    assert task.plan() == 3
    assert "c3" in task.said and "zero everywhere" in task.said


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_a_label_that_covers_everything_trains(task: Task, modality: str) -> None:
    covered = {name: (images, np.ones(SHAPE, np.uint8)) for name, (images, _) in five().items()}
    task.write(covered, modalities=(modality,))
    assert task.plan("-pl2d", "None") == 0
    assert task.train() == 0
    assert task.dice()


@pytest.mark.slow
def test_two_channels_train_and_predict_and_a_missing_one_is_named(task: Task) -> None:
    task.write(five(channels=2), modalities=("T1", "T2"))
    assert task.plan("-pl2d", "None") == 0
    assert task.train() == 0
    assert task.dice()
    assert task.predict() == 0
    (task.raw / "imagesTr" / "c2_0001.nii.gz").unlink()
    assert task.predict() == 3
    assert "c2_0001.nii.gz" in task.said


@pytest.mark.slow
@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_a_speck_in_an_empty_image_trains(task: Task, configuration: str) -> None:
    image, label = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.uint8)
    image[5:7, 5:7, 5:8], label[5, 5, 5] = 9, 1
    task.write({**five(), "c1": ([image], label)})
    assert task.plan() == 0
    assert task.train(configuration) == 0
    assert task.dice(configuration)
