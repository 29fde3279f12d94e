"""tools/change_bs.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from nnunetlike.core.serialization import load_pickle, to_plain
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import load_plans, save_plans

TASK = "Task003_Liver"
BY_V1 = "model/RESULTS_FOLDER/nnUNet/3d_fullres/Task071_CTISO/nnUNetTrainerV2__nnUNetPlans_tiny"


@pytest.fixture
def tool(imported: Callable[[str], ModuleType]) -> ModuleType:
    return imported("change_bs")


def plans_file(home: Path, identifier: str = "nnUNetPlansv2.1") -> Path:
    folder = home / "nnUNet_preprocessed" / TASK
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{identifier}_plans_3D.pkl"


def of_two_stages(plans: Plans) -> Plans:
    return replace(plans, stages={0: plans.stages[0], 1: plans.stages[0]})


def same(a: Any, b: Any) -> bool:
    """Equal in type, order and value, arrays included."""
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(np.array_equal(a, b))


def without_sizes(content: dict[str, Any]) -> dict[str, Any]:
    stages = content["plans_per_stage"]
    return content | {
        "plans_per_stage": {i: stage | {"batch_size": 0} for i, stage in stages.items()}
    }


@pytest.mark.parametrize("stages", [1, 2])
def test_every_stage_gets_the_size_and_the_json_beside_it_too(
    tool: ModuleType, tmp_path: Path, tiny_plans: Callable[[int], Plans], stages: int
) -> None:
    plans = tiny_plans(3) if stages == 1 else of_two_stages(tiny_plans(3))
    path = plans_file(tmp_path)
    save_plans(plans, path)
    before, after = tool.change_batch_size(path, 5)
    assert [stage.batch_size for stage in before.stages.values()] == [2] * stages
    assert [stage.batch_size for stage in load_plans(path).stages.values()] == [5] * stages
    assert after == load_plans(path)
    twin = json.loads(path.with_suffix(".json").read_text())["plans_per_stage"]
    assert [stage["batch_size"] for stage in twin.values()] == [5] * stages


def test_nothing_else_changes_in_plans_that_v1_wrote(
    tool: ModuleType, tmp_path: Path, golden: Path
) -> None:
    path = plans_file(tmp_path)
    shutil.copy(golden / BY_V1 / "plans.pkl", path)
    before = to_plain(load_pickle(path), keep_arrays=True)
    tool.change_batch_size(path, 7)
    after = load_pickle(path)
    assert {stage["batch_size"] for stage in after["plans_per_stage"].values()} == {7}
    assert same(without_sizes(before), without_sizes(after))


def test_damaged_plans_are_left_as_they_are(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plans_file(tmp_path)
    path.write_bytes(b"half a pickle")
    assert tool.main(["-path", str(tmp_path), "-size", "2"]) == 3
    assert "cannot be read as a pickle" in capsys.readouterr().err
    assert path.read_bytes() == b"half a pickle"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_user_sees_sizes_and_memory_before_and_after(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], run_tool: Callable[..., Any]
) -> None:
    save_plans(of_two_stages(tiny_plans(3)), plans_file(tmp_path, "Mine"))
    words = ["-path", tmp_path, "-size", 4, "-task", 3, "-plans", "Mine"]
    done = run_tool("change_bs", *words, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"{plans_file(tmp_path, 'Mine')} (and .json):"
    assert lines[1].startswith("  stage 0 (3d_lowres): batch 2 -> 4; memory: U-Net ")
    assert lines[2].startswith("  stage 1 (3d_fullres): batch 2 -> 4; memory: U-Net ")
    assert " -> " in lines[1].partition("UNet++ ")[2]
    assert load_plans(plans_file(tmp_path, "Mine")).stages[1].batch_size == 4


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-size", "0"], 2, "-size 0: a batch has 1 patch or more"),
        (["-size", "two"], 2, "invalid int value: 'two'"),
        ([], 2, "the following arguments are required: -size"),
        (["-size", "2", "-task", "9"], 2, "no task has the number 9"),
        (["-size", "2", "-task", "Task004_X"], 3, "There are: Task003_Liver -plans nnUNetPlansv2"),
        (["-size", "2", "-plans", "Other"], 3, "Other_plans_3D.pkl does not exist"),
    ],
)
def test_wrong_arguments_are_told(
    tool: ModuleType, tmp_path: Path, tiny_plans: Callable[[int], Plans],
    capsys: pytest.CaptureFixture[str], words: list[str], status: int, said: str,
) -> None:  # fmt: skip
    save_plans(tiny_plans(3), plans_file(tmp_path))
    try:
        found = tool.main(["-path", str(tmp_path), *words])
    except SystemExit as left:
        found = left.code
    assert found == status
    assert said in capsys.readouterr().err
    assert load_plans(plans_file(tmp_path)).stages[0].batch_size == 2


def test_a_folder_without_preprocessed_data_is_named(
    tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["-path", str(tmp_path), "-size", "2"]) == 2
    assert "nnUNet_preprocessed does not exist; -path is the folder" in capsys.readouterr().err
