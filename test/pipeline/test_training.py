"""nnUNet_train from a tiny preprocessed task to checkpoints, logs and a validation."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nnunetlike.core.serialization import load_pickle
from nnunetlike.networks.model_files import load_model_file
from nnunetlike.run.run_training import main
from nnunetlike.training.hooks import EpochReport
from nnunetlike.training.hooks.monitor import Stopwatch
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.recipes import TRAINERS
from nnunetlike.training.state import TrainState

TASK = "Task901_Tiny"
OPTIONS = (
    "--epochs=2", "--iterations=2", "--val_iterations=1", "--num_workers=0", "--seed=7",
    "--device=cpu", "--fp32",
)  # fmt: skip


def fold_folder(
    home: Path, trainer: str = "nnUNetTrainerV2", configuration: str = "3d_fullres"
) -> Path:
    model = home / "results" / "nnUNet" / configuration / TASK / f"{trainer}__nnUNetPlansv2.1"
    return model / "fold_0"


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
@pytest.mark.parametrize("trainer", ["nnUNetTrainerV2", "nnUNetPlusPlusTrainerV2"])
def test_training_writes_all_of_v1s_files(
    tiny_task: Path,
    trainer: str,
    configuration: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert main([configuration, trainer, "901", "0", *OPTIONS]) == 0
    folder = fold_folder(tiny_task, trainer, configuration)
    names = {p.name for p in folder.iterdir()}
    assert {
        "model_final_checkpoint.model",
        "model_final_checkpoint.model.pkl",
        "debug.json",
        "progress.png",
        "metrics.jsonl",
        "postprocessing.json",
        "validation_raw",
        "validation_raw_postprocessed",
    } <= names
    assert not any("latest" in name for name in names)
    assert {p.name for p in (folder / "validation_raw").iterdir()} == {
        "c_4.nii.gz", "c_5.nii.gz", "summary.json", "validation_args.json",
    }  # fmt: skip
    assert (folder.parent / "plans.pkl").is_file()
    assert len(list((folder.parent / "gt_niftis").iterdir())) == 6
    assert json.loads((folder / "debug.json").read_text())["recipe"]["epochs"] == 2
    assert load_model_file(folder / "model_final_checkpoint.model").epoch == 2
    out = capsys.readouterr().out
    assert re.search(r"class +1  Dice [01]\.\d{4}", out)
    assert re.search(r"epoch +1/1  loss train [-\d.]+ val [-\d.]+  Dice \[.+\]", caplog.text)
    assert "This split has 4 training and 2 validation cases." in caplog.text


def test_log_has_the_lines_people_grep(tiny_task: Path) -> None:
    options = (*OPTIONS, "--disable_validation_inference")
    assert main(["2d", "nnUNetTrainerV2", TASK, "0", *options]) == 0
    (log,) = fold_folder(tiny_task, configuration="2d").glob("training_log_*.txt")
    assert re.fullmatch(r"training_log_\d{4}(_\d{1,2}){2}(_\d{2}){3}\.txt", log.name)
    text = log.read_text()
    stamp = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}: "
    number = r"-?\d+\.\d{4} $"
    for pattern in (
        stamp + r"\nepoch:  0 $",
        stamp + r"train loss : " + number,
        stamp + r"validation loss: " + number,
        stamp + r"Average global foreground Dice: \[(\d\.\d+(, )?)*\] $",
        stamp + r"\(interpret this as an estimate for the Dice of the different classes\. "
        r"This is not exact\.\) $",
        stamp + r"lr: 0\.01 $",
        stamp + r"lr: 0\.005359 $",
        stamp + r"This epoch took \d+\.\d{6} s$",
        stamp + r"saving checkpoint\.\.\. $",
    ):
        assert re.search(pattern, text, re.MULTILINE), pattern
    assert text.startswith("Starting... \n")
    assert "np.float" not in text


def test_metrics_have_one_line_per_epoch_and_resume_goes_on(tiny_task: Path) -> None:
    arguments = ["2d", "nnUNetTrainerV2", TASK, "0", "--disable_validation_inference", *OPTIONS]
    assert main(arguments) == 0
    folder = fold_folder(tiny_task, configuration="2d")
    assert main([*arguments, "-c", "--epochs=4"]) == 0
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2, 3]
    for line in lines:
        assert {"train_loss", "val_loss", "dice", "lr", "wait_s", "compute_s", "total_s"} <= set(
            line
        )
    content = load_model_file(folder / "model_final_checkpoint.model").content
    assert content["epoch"] == 4
    assert content["plot_stuff"][0] == [line["train_loss"] for line in lines]
    assert lines[2]["lr"] == pytest.approx(0.01 * 0.5**0.9)


def test_interrupted_training_ends_as_one_without_a_break(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = TRAINERS.get("nnUNetTrainerV2")
    monkeypatch.setattr(TRAINERS, "get", lambda name: replace(trainer, save_every=2))
    arguments = ["2d", "nnUNetTrainerV2", TASK, "0", "--disable_validation_inference", *OPTIONS]
    arguments.append("--epochs=4")
    path = fold_folder(tiny_task, configuration="2d") / "model_final_checkpoint.model"
    assert main(arguments) == 0
    whole = load_model_file(path).content
    with monkeypatch.context() as patched:
        patched.setattr(Stopwatch, "on_epoch_end", _interrupt)
        assert main(arguments) == 5
    assert main([*arguments, "-c"]) == 0
    again = load_model_file(path).content
    assert again["plot_stuff"] == whole["plot_stuff"]
    assert again["moving_averages"] == whole["moving_averages"]
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, again["state_dict"][name])


def _interrupt(self: Stopwatch, loop: TrainLoop, state: TrainState, report: EpochReport) -> None:
    if report.epoch == 2:
        raise KeyboardInterrupt


def test_validation_only_says_which_weights_it_takes(
    tiny_task: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = ["2d", "nnUNetTrainerV2", TASK, "0", *OPTIONS]
    assert main([*arguments, "--disable_validation_inference"]) == 0
    caplog.clear()
    assert main([*arguments, "-val", "--val_folder", "again", "--npz"]) == 0
    assert "validating the weights of" in caplog.text
    assert "model_final_checkpoint.model" in caplog.text
    names = {p.name for p in (fold_folder(tiny_task, configuration="2d") / "again").iterdir()}
    assert {"c_4.npz", "c_4.pkl", "c_4.nii.gz", "summary.json"} <= names
    assert main([*arguments[:3], "7", "-val"]) == 3


def test_chosen_weights_are_validated_into_a_folder_of_their_own(
    tiny_task: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = ["2d", "nnUNetTrainerV2", TASK, "0", *OPTIONS]
    assert main(words) == 0
    folder = fold_folder(tiny_task, configuration="2d")
    elsewhere = tiny_task / "mine.model"
    for suffix in ("", ".pkl"):
        content = (folder / f"model_final_checkpoint.model{suffix}").read_bytes()
        elsewhere.with_name(f"mine.model{suffix}").write_bytes(content)
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*postproc*")}
    for name, into in (("final", "validation_final"), (str(elsewhere), "validation_mine")):
        assert main([*words, "-val", "-chk", name]) == 0
        assert (folder / into / "summary.json").is_file()
    assert "validating the weights of " + str(elsewhere) in caplog.text
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert main([*words, "-val", "-chk", "latest"]) == 3
    assert "holds no model_latest.model with its .pkl; found: model_" in capsys.readouterr().err


def test_checkpoint_holds_what_v1_reads(tiny_task: Path) -> None:
    options = (*OPTIONS, "--disable_validation_inference")
    assert main(["3d_fullres", "nnUNetTrainerV2", TASK, "0", *options]) == 0
    path = fold_folder(tiny_task) / "model_final_checkpoint.model"
    content = torch.load(path, weights_only=True)
    assert list(content)[:6] == [
        "epoch", "state_dict", "optimizer_state_dict", "lr_scheduler_state_dict", "plot_stuff",
        "best_stuff",
    ]  # fmt: skip
    assert next(iter(content["state_dict"])).startswith("conv_blocks_localization.0.0.blocks.0")
    info = load_pickle(path.with_name(path.name + ".pkl"))
    assert list(info)[:4] == ["init", "name", "class", "plans"]
    kinds = [type(value) for value in info["init"]]
    assert kinds == [str, int, str, str, bool, int, bool, bool, bool]
    assert info["configuration"] == "3d_fullres"
    assert info["mirror_axes"] == [0, 1, 2]
    assert info["strategy"] == "sliding_window"
    assert info["network"]["spec"]["name"] == "unet"


def test_pretrained_weights_are_where_training_starts(
    tiny_task: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = (*OPTIONS, "--disable_validation_inference")
    assert main(["2d", "nnUNetTrainerV2", TASK, "0", *options]) == 0
    weights = fold_folder(tiny_task, configuration="2d") / "model_final_checkpoint.model"
    arguments = ["2d", "nnUNetTrainerV2", TASK, "all", *options]
    assert main([*arguments, "-pretrained_weights", str(weights)]) == 0
    assert "100.0% of" in caplog.text
    assert main([*arguments, "-pretrained_weights", str(weights), "--base_num_features=6"]) == 3


def test_learning_rate_test_writes_its_curve_and_trains_nothing(tiny_task: Path) -> None:
    assert main(["2d", "nnUNetTrainerV2", TASK, "0", *OPTIONS, "--find_lr"]) == 0
    folder = fold_folder(tiny_task, configuration="2d")
    content = json.loads((folder / "lr_finder.json").read_text())
    assert len(content["lr"]) == len(content["loss"]) == 8
    assert (folder / "lr_finder.png").is_file()
    assert not list(folder.glob("*.model"))


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["3d_cascade_fullres", "nnUNetTrainerV2", TASK, "0"], 2, "3d_cascade_fullres"),
        (["3d_lowres", "nnUNetTrainerV2", TASK, "0"], 2, "one stage"),
        (["2d", "nnUNetTrainerv2", TASK, "0"], 2, "Did you mean 'nnUNetTrainerV2'"),
        (["2d", "nnUNetTrainerV2", TASK, "zero"], 2, "fold 'zero'"),
        (["2d", "nnUNetTrainerV2", TASK, "0", "-c"], 3, "Train this fold first"),
        (["2d", "nnUNetTrainerV2", TASK, "0", "--epochs=0"], 2, "epochs is 0"),
        (["2d", "nnUNetTrainerV2", TASK, "0", "-p", "Other"], 3, "does not exist"),
        (["2d", "nnUNetTrainerV2", TASK, "0", "--valbest"], 2, "--valbest"),
    ],
)
def test_mistakes_end_with_a_message_and_a_status(
    tiny_task: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    status: int,
    message: str,
) -> None:
    assert main([*words, "--num_workers=0", "--device=cpu"]) == status
    assert message in capsys.readouterr().err


def test_a_fold_beyond_the_splits_is_random_and_says_so(
    tiny_task: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = (*OPTIONS, "--disable_validation_inference", "--disable_saving")
    assert main(["2d", "nnUNetTrainerV2", TASK, "3", *options]) == 0
    assert "random 80 %" in caplog.text
    folder = fold_folder(tiny_task, configuration="2d").with_name("fold_3")
    assert not list(folder.glob("*.model"))
    facts = json.loads((folder / "debug.json").read_text())
    assert len(facts["train_cases"]) == 4
    assert len(facts["val_cases"]) == 2


def test_mixed_precision_trains_on_a_cpu_that_has_it(
    tiny_task: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnunetlike.training.runtime.cpu_has_bfloat16", lambda: True)
    options = [option for option in OPTIONS if option != "--fp32"]
    assert main(["2d", "nnUNetTrainerV2", TASK, "0", *options]) == 0
    folder = fold_folder(tiny_task, configuration="2d")
    assert json.loads((folder / "debug.json").read_text())["precision"] == "bf16"
    weights = load_model_file(folder / "model_final_checkpoint.model").state_dict
    assert {value.dtype for value in weights.values()} == {torch.float32}


def test_worker_processes_make_the_same_batches(tiny_task: Path) -> None:
    found = []
    for workers in ("0", "1"):
        options = (*OPTIONS, "--disable_validation_inference", f"--num_workers={workers}")
        assert main(["2d", "nnUNetTrainerV2", TASK, "0", *options]) == 0
        path = fold_folder(tiny_task, configuration="2d") / "model_final_checkpoint.model"
        found.append(load_model_file(path).content["plot_stuff"])
    assert found[0] == found[1]
