"""tools/get_dice_result.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nnunetlike.core.serialization import save_json
from nnunetlike.evaluation.summary import CaseScores, Summary

ONE, SEVERAL = "nnUNetPlusPlusTrainerV2", "nnUNetPlusPlusTrainerV2_hypDDP"


@pytest.fixture
def tool(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("get_dice_result")


def write_summary(
    home: Path, task: str, trainer: str, dice: list[list[float]], fold: str = "fold_0"
) -> None:
    """Write a summary with a row of Dice per case, one value per label from 0 on."""
    cases = tuple(
        CaseScores(
            "",
            "",
            {
                str(i): {"Dice": d, "Recall": d / 2, "Hausdorff Distance 95": 3.5}
                for i, d in enumerate(row)
            },
        )
        for row in dice
    )
    model = home / "RESULTS_FOLDER" / "nnUNet" / "3d_fullres" / task / f"{trainer}__nnUNetPlansv2.1"
    Summary(cases).write(model / fold / "validation_raw" / "summary.json")


def test_liver_gets_the_two_lines_of_the_port(tmp_path: Path, run_tool: Callable[..., Any]) -> None:
    write_summary(tmp_path, "Task003_Liver", ONE, [[1.0, 0.96, 0.5], [1.0, 0.98, math.nan]])
    done = run_tool("get_dice_result", "-path", tmp_path, "-mode", "1p", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Liver 1_Dice (val): 97.0000",
        "Liver 2_Dice (val): 50.0000",
    ]


def test_other_tasks_get_a_line_per_label_and_the_mean(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [[1.0, 0.9, 0.8, math.nan]]
    write_summary(tmp_path, "Task004_Hippocampus", SEVERAL, rows, fold="fold_2")
    words = ["-path", str(tmp_path), "-mode", "8p", "-task", "4", "-fold", "2"]
    assert tool.main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Hippocampus 1_Dice (val): 90.0000",
        "Hippocampus 2_Dice (val): 80.0000",
        "Hippocampus 3_Dice (val): n/a (in no label and no prediction)",
        "Hippocampus mean_Dice (val): 85.0000",
    ]


@pytest.mark.parametrize(
    ("target", "line"),
    [
        ("Recall", "Liver 1_Recall (val): 45.0000"),
        ("Hausdorff Distance 95", "Liver 1_Hausdorff Distance 95 (val): 3.5000"),
    ],
)
def test_shares_are_in_percent_and_distances_are_not(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str, line: str
) -> None:
    write_summary(tmp_path, "Task003_Liver", ONE, [[1.0, 0.9]])
    assert tool.main(["-path", str(tmp_path), "-mode=1p", "-target", target]) == 0
    assert capsys.readouterr().out.splitlines() == [line]


def test_any_trainer_can_be_named_instead_of_a_mode(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_summary(tmp_path, "Task003_Liver", "Mine", [[1.0, 0.25]], fold="all")
    words = ["-path", str(tmp_path), "-trainer", "Mine", "-fold", "all"]
    assert tool.main(words) == 0
    assert capsys.readouterr().out == "Liver 1_Dice (val): 25.0000\n"


def write_video_summary(home: Path, configuration: str = "video2d") -> None:
    """Write a summary of videos as evaluation does."""
    model = home / "RESULTS_FOLDER/nnUNet" / configuration / "Task027_Beat"
    path = model / "GDKVMTrainer__nnUNetPlansv2.1" / "fold_0" / "validation_raw" / "summary.json"
    content = Summary((CaseScores("", "", {"0": {"Dice": 1.0}, "1": {"Dice": 0.9}}),)).write(path)
    dice = {"Dice": 0.95, "IoU": 0.9}
    content["phases"] = {
        "ED": {"1": dice, "mean": dice, "n_cases": 1, "n_frames": 1},
        "ES": {"1": {**dice, "Dice": math.nan}, "mean": dice, "n_cases": 1, "n_frames": 1},
    }
    distances = {"HD95": 3.7241, "ASD": math.nan}
    content["surface"] = {"unit": "mm", "1": distances, "mean": distances}
    save_json(content, path)


VIDEO_LINES = [
    "Beat 1_Dice (val): 90.0000",
    "Beat mean_Dice (val): 90.0000",
    "Beat ED 1_Dice (val): 95.0000",
    "Beat ED mean_Dice (val): 95.0000",
    "Beat ES 1_Dice (val): n/a (in no label and no prediction)",
    "Beat ES mean_Dice (val): 95.0000",
    "Beat 1_HD95 (val): 3.7241 mm",
    "Beat 1_ASD (val): n/a",
    "Beat mean_HD95 (val): 3.7241 mm",
    "Beat mean_ASD (val): n/a",
]


@pytest.mark.parametrize("more", [[], ["-configuration", "video2d"]])
def test_a_summary_of_videos_tells_phases_and_distances_with_their_unit(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    write_video_summary(tmp_path)
    words = ["-path", str(tmp_path), "-trainer", "GDKVMTrainer", "-task", "27", *more]
    assert tool.main(words) == 0
    assert capsys.readouterr().out.splitlines() == VIDEO_LINES


def test_a_configuration_that_is_named_is_the_one_that_is_read(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video_summary(tmp_path)
    words = ["-path", str(tmp_path), "-trainer=GDKVMTrainer", "-task=27", "-configuration"]
    assert tool.main([*words, "3d_fullres"]) == 3
    said = capsys.readouterr().err
    assert "Validated below" in said and "video2d/Task027_Beat/GDKVMTrainer" in said
    write_video_summary(tmp_path, "2d")
    assert tool.main(words[:-1]) == 3  # two others: not guessed
    assert "Choose with -task, -trainer, -configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-mode", "2p"], 2, "invalid choice: '2p' (choose from"),
        ([], 2, "give -mode 1p or 8p, or the name of a trainer"),
        (["-mode=1p", "-fold", "x"], 2, "fold 'x' is neither a number nor 'all'"),
        (["-mode=1p", "-target", "dice"], 2, "-target dice: Did you mean 'Dice'?"),
        (
            ["-mode=8p"], 3,
            f"Validated below {{}}: 3d_fullres/Task003_Liver/{ONE}__nnUNetPlansv2.1/fold_0. Choose",
        ),
    ],
)  # fmt: skip
def test_wrong_arguments_are_told(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], status: int, said: str,
) -> None:  # fmt: skip
    write_summary(tmp_path, "Task003_Liver", ONE, [[1.0, 0.9]])
    try:
        found = tool.main(["-path", str(tmp_path), *words])
    except SystemExit as left:
        found = left.code
    assert found == status
    assert said.format(tmp_path / "RESULTS_FOLDER" / "nnUNet") in capsys.readouterr().err


def test_where_nothing_is_trained_that_is_said(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-path", str(tmp_path), "-mode=1p"]
    assert tool.main(words) == 2
    assert "RESULTS_FOLDER/nnUNet does not exist; -path is the folder" in capsys.readouterr().err
    (tmp_path / "RESULTS_FOLDER" / "nnUNet").mkdir(parents=True)
    assert tool.main(words) == 3
    assert "nothing yet" in capsys.readouterr().err
