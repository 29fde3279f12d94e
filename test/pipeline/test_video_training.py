"""nnUNet_train on videos: from a synthetic task to checkpoints, exact resume and a validation."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nnunetlike.data.store import CaseStore
from nnunetlike.networks.model_files import load_model_file
from nnunetlike.run.determine_postprocessing import main as determine
from nnunetlike.run.plan_and_preprocess import main as plan_and_preprocess
from nnunetlike.run.run_training import main
from nnunetlike.training.hooks import EpochReport
from nnunetlike.training.hooks.monitor import Stopwatch
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.recipes import TRAINERS
from nnunetlike.training.state import TrainState

TASK = "Task950_Ventricles"
OPTIONS = (
    "--epochs=2", "--iterations=3", "--val_iterations=1", "--num_workers=0", "--batch_size=2",
    "--device=cpu", "--fp32",
)  # fmt: skip


def fold_folder(home: Path, trainer: str) -> Path:
    model = home / "results" / "nnUNet" / "video2d" / TASK / f"{trainer}__nnUNetPlansv2.1"
    return model / "fold_0"


def words(trainer: str, *more: str) -> list[str]:
    return ["video2d", trainer, TASK, "0", "--seed=7", *OPTIONS, *more]


@pytest.mark.slow
@pytest.mark.parametrize("trainer", ["GDKVMTrainer", "GDKVMTrainer_framewise"])
def test_a_trainer_of_videos_trains_and_validates_every_frame(
    video_task: Callable[..., Path], trainer: str, capsys: pytest.CaptureFixture[str]
) -> None:
    home = video_task(labelled="ends")
    assert main(words(trainer)) == 0
    folder = fold_folder(home, trainer)
    said = capsys.readouterr().out
    assert "clip 8 x 48 x 48, batch 2, 1 channels, 2 classes with background" in said
    summary = json.loads((folder / "validation_raw" / "summary.json").read_text())
    assert set(summary["results"]["mean"]) == {"0", "1"}
    assert {"per_frame", "phases", "views", "surface", "temporal", "clinical"} <= set(summary)
    assert summary["surface"]["unit"] == "px"
    assert {row["frame"] for row in summary["per_frame"]} == {0, 7}  # the labelled ones
    assert not (folder / "postprocessing.json").exists()
    arguments = json.loads((folder / "validation_raw" / "validation_args.json").read_text())
    assert arguments["do_mirroring"] is False


@pytest.mark.slow
def test_the_official_fold_trains_and_validates_as_the_lists_say(
    raw_video_task: Callable[..., Path], home: Path
) -> None:
    raw = raw_video_task(videos=4)
    for number, path in enumerate(sorted((raw / "casesTr").iterdir())):
        split = "val" if number == 2 else "train"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"split": split}))
    assert plan_and_preprocess(["-t", TASK]) == 0
    arguments = ["video2d", "GDKVMTrainer", TASK, "official", "--seed=7", *OPTIONS, "--epochs=1"]
    assert main(arguments) == 0
    folder = fold_folder(home, "GDKVMTrainer").with_name("fold_official") / "validation_raw"
    assert [path.name for path in folder.glob("*.nii.gz")] == ["patient0002_4CH.nii.gz"]


@pytest.mark.slow
def test_six_steps_are_three_and_three_after_a_break(
    video_task: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = video_task()
    trainer = TRAINERS.get("GDKVMTrainer")
    objective = replace(trainer.objective, points=100)  # drawn from a generator that must go on
    short = replace(trainer, save_every=1, objective=objective)
    monkeypatch.setattr(TRAINERS, "get", lambda name: short)
    path = fold_folder(home, "GDKVMTrainer") / "model_final_checkpoint.model"
    arguments = words("GDKVMTrainer", "--disable_validation_inference")
    assert main(arguments) == 0
    whole = load_model_file(path).content
    with monkeypatch.context() as patched:
        patched.setattr(Stopwatch, "on_epoch_end", _interrupt)
        assert main(arguments) == 5
    assert main([*arguments, "-c"]) == 0
    again = load_model_file(path).content
    assert again["plot_stuff"] == whole["plot_stuff"]
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, again["state_dict"][name]), name


def _interrupt(self: Stopwatch, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_clip_without_the_object_trains_and_is_predicted(
    video_task: Callable[..., Path],
) -> None:
    home = video_task(videos=4)
    store = home / "preprocessed" / TASK / "nnUNetData_plans_v2.1_video2D_stage0"
    _erase_the_object(store)
    assert main(words("GDKVMTrainer", "--use_compressed_data", "--epochs=1")) == 0


def _erase_the_object(folder: Path) -> None:
    """Take the object out of the first labelled frame of every preprocessed video."""
    store = CaseStore(folder)
    for case in store.case_ids():
        data = store.load(case, unpacked=False).copy()
        data[-1, 0][data[-1, 0] == 1] = 0
        store.write(case, data, store.record(case))


@pytest.mark.slow
def test_the_small_network_learns_faster_unless_the_user_says_how_fast(
    video_task: Callable[..., Path],
) -> None:
    home = video_task()
    for more, rate in (([], 2e-3), (["--lr=3e-4"], 3e-4)):
        arguments = words("GDKVMTrainer", "--disable_validation_inference", *more, "--epochs=1")
        assert main(arguments) == 0
        lines = (fold_folder(home, "GDKVMTrainer") / "metrics.jsonl").read_text().splitlines()
        assert json.loads(lines[-1])["lr"] == rate


def test_trainers_of_images_and_of_videos_are_not_mixed_up(
    video_task: Callable[..., Path], tiny_task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video_task(videos=2)
    for arguments, message in (
        (["video2d", "nnUNetTrainerV2", TASK, "0"], "nnUNetTrainerV2 is a trainer of images"),
        (["2d", "GDKVMTrainer", "Task901_Tiny", "0"], "GDKVMTrainer is a trainer of videos"),
        (["2d", "nnUNetTrainerV2", TASK, "0"], "holds videos and is planned for video2d"),
        (["video2d", "GDKVMTrainer", "Task901_Tiny", "0"], "is not planned for video2d"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_postprocessing_of_videos_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert determine(["-m", "video2d", "-t", TASK]) == 2
    assert "frames without a label would count as background" in capsys.readouterr().err
