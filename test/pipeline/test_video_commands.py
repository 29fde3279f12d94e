"""From folders of frames to clinical numbers by the commands that a user types."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nnunetlike.core.serialization import load_pickle
from nnunetlike.data.imageio import format_of

pytestmark = [pytest.mark.slow, pytest.mark.ddp]
ROOT = Path(__file__).resolve().parents[2]
HANG_S = 300
VIDEOS, NEW = 20, 2
SHORT = (
    "--epochs", "2", "--iterations", "4", "--val_iterations", "1", "--num_workers", "0",
    "--batch_size", "4", "--seed", "7", "--device", "cpu", "--fp32",
)  # fmt: skip


class Home:
    """A user's three folders and the commands typed there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.task = folder / "raw" / "nnUNet_raw_data" / "Task029_Frames"
        self.preprocessed = folder / "preprocessed" / "Task029_Frames"
        self.results = folder / "RESULTS_FOLDER"
        self.model = self.results / "nnUNet/video2d/Task029_Frames/GDKVMTrainer__nnUNetPlansv2.1"

    def run(self, command: str, *words: object, expect: int = 0) -> str:
        """Run a command in a process of its own and return what it said."""
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
            "nnUNet_def_n_proc": "0", "nnUNet_raw_data_base": str(self.folder / "raw"),
            "nnUNet_preprocessed": str(self.folder / "preprocessed"),
            "RESULTS_FOLDER": str(self.results),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, *command.split(), *map(str, words)], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=HANG_S, check=False,
        )  # fmt: skip
        assert done.returncode == expect, done.stdout
        return done.stdout

    def plan(self) -> str:
        return self.run("-m nnunetlike.run.plan_and_preprocess", "-t", 29)

    def train(self, *words: object) -> dict[str, float]:
        """Train and return the means of the validation's summary."""
        command = "-m nnunetlike.run.run_training"
        self.run(command, "video2d", "GDKVMTrainer", 29, 0, *SHORT, *words)
        path = self.model / "fold_0" / "validation_raw" / "summary.json"
        means: dict[str, float] = json.loads(path.read_text())["results"]["mean"]["1"]
        return means


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, make_ventricles: ModuleType) -> Home:
    """Twenty videos, converted from folders of frames and planned."""
    home = Home(tmp_path_factory.mktemp("videos"))
    frames = home.folder / "frames"
    make_ventricles.make_pictures(frames, VIDEOS, NEW, labelled="ends")
    home.run(
        "-m nnunetlike.run.convert_png_video_task", "--images", frames / "img", "--masks",
        frames / "gt", "--split", frames / "split.json", "--labels", "LV", "--echo",
        "-output_task_id", 29,
    )  # fmt: skip
    said = home.plan()
    assert "20 videos of 20 patients are split into 5 folds by patient" in said
    return home


def test_a_task_can_be_planned_again_with_the_same_bytes(planned: Home) -> None:
    path = planned.preprocessed / "nnUNetPlansv2.1_plans_video2D.pkl"
    before = path.read_bytes()
    planned.plan()
    assert path.read_bytes() == before
    assert load_pickle(path)["plans_per_stage"][0]["video"]["clip_length"] == 8


def test_a_model_trains_predicts_and_is_measured_and_again_with_the_same_numbers(
    planned: Home,
) -> None:
    first = planned.train()
    assert planned.train()["Dice"] == pytest.approx(first["Dice"], abs=1e-6)
    assert_is_predicted(planned)
    said = planned.run(
        f"{ROOT}/tools/get_dice_result.py", "-path", planned.folder, "-trainer", "GDKVMTrainer",
        "-task", 29,
    )  # fmt: skip
    assert "Frames 1_Dice (val):" in said
    assert "Frames ES 1_Dice (val):" in said


def test_two_processes_train_and_share_the_validation(planned: Home) -> None:
    planned.train("--nproc", 2, "--dbs")
    validated = list((planned.model / "fold_0" / "validation_raw").glob("*.nii.gz"))
    assert len(validated) == VIDEOS // 5
    assert_is_predicted(planned)


def assert_is_predicted(home: Home) -> None:
    """Assert that new videos are predicted frame by frame, drawn, and measured."""
    output = home.folder / "predicted"
    home.run(
        "-m nnunetlike.run.predict", "-i", home.task / "imagesTs", "-o", output, "-t", 29,
        "-m", "video2d", "-f", 0, "--overlay", "gif", "--overwrite_existing",
    )  # fmt: skip
    for case in (f"patient{n:04d}_4CH" for n in range(VIDEOS, VIDEOS + NEW)):
        label, _ = format_of(output / f"{case}.nii.gz").read_label(output / f"{case}.nii.gz")
        assert label.shape == (8, 48, 48)
        assert (output / f"{case}.gif").stat().st_size > 0
    with (output / "clinical.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["patient"] for row in rows] == ["patient0020", "patient0021"]
    assert all(row["ef"] or row["failure"] for row in rows)
    home.run(
        "-m nnunetlike.run.evaluate_folder", "-ref", home.task / "labelsTs", "-pred", output,
        "-l", 1,
    )  # fmt: skip
    summary = json.loads((output / "summary.json").read_text())
    assert {row["frame"] for row in summary["per_frame"]} == {0, 7}
    assert summary["surface"]["unit"] == "px"
