"""nnUNet_predict: what its options accept and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetlike.run.predict import build_parser, main

NEEDED = ["-i", "in", "-o", "out", "-t", "Task001_A"]


def test_defaults_are_v1s() -> None:
    args = build_parser().parse_args(NEEDED)
    assert (args.trainer_class_name, args.model, args.plans_identifier, args.folds) == (
        "nnUNetTrainerV2",
        "3d_fullres",
        "nnUNetPlansv2.1",
        None,
    )
    assert (args.num_threads_preprocessing, args.num_threads_nifti_save) == (6, 2)
    assert (args.step_size, args.mode, args.checkpoint) == (0.5, "normal", "model_final_checkpoint")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-m", "3d"], "use 2d, 3d_lowres, 3d_fullres, 3d_cascade_fullres, video2d"),
        (["--mode", "fast", "-z"], "use --mode normal with --save_npz"),
        (["--part_id", "2", "--num_parts", "2"], "part_id 2 must be at least 0 and below"),
        (["--bf16", "--disable_mixed_precision"], "contradict"),
        (["-l", "folder"], "-l belongs to -m 3d_cascade_fullres"),
        (["--device", "abacus"], "torch knows no device 'abacus'"),
        (["--device", "cuda:99"], "device cuda:99 was asked for"),
        (["-f", "first"], "neither a number nor 'all'"),
    ],
)
def test_what_cannot_work_is_a_usage_error(
    home: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (home / "results/nnUNet/3d_fullres/Task001_A/nnUNetTrainerV2__nnUNetPlansv2.1").mkdir(
        parents=True
    )
    assert main([*NEEDED, *options]) == 2
    assert message in capsys.readouterr().err


def test_a_model_that_was_never_trained_is_an_error(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(NEEDED) == 3
    assert "there is no trained model at" in capsys.readouterr().err


def test_every_option_of_v1_that_has_an_effect_is_there() -> None:
    options = {
        "-i", "-o", "-t", "-tr", "-m", "-p", "-f", "-z", "--save_npz", "--part_id", "--num_parts",
        "--num_threads_preprocessing", "--num_threads_nifti_save", "--disable_tta",
        "--overwrite_existing", "--mode", "--all_in_gpu", "--step_size", "-chk",
        "--disable_mixed_precision",
    }  # fmt: skip
    known = {name for action in build_parser()._actions for name in action.option_strings}
    assert options <= known
