"""nnUNet_verify_dataset as a user runs it: text, exit codes, the mended copy, JSON."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.run import plan_and_preprocess
from nnunetlike.run.verify_dataset import main

SHAPE = (4, 6, 5)
TASK = "Task001_X"


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path.relative_to(folder)).encode())
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def write(path: Path, voxels: Any) -> None:
    grid = Geometry(shape=SHAPE, spacing=(2.0, 1.0, 1.0))
    format_of(path).write_label(voxels, grid, path)


@pytest.fixture
def raw(home: Path) -> Path:
    """A raw task of three cases whose masks are 0 and 255; case c has no image."""
    folder = home / "raw" / "nnUNet_raw_data" / TASK
    for case_id in "abc":
        mask = np.zeros(SHAPE, np.uint8)
        mask[1:3, 2:4, 1:4] = 255
        write(folder / "labelsTr" / f"{case_id}.nii.gz", mask)
        image = np.arange(1, mask.size + 1, dtype=np.float32).reshape(SHAPE)
        if case_id != "c":
            write(folder / "imagesTr" / f"{case_id}_0000.nii.gz", image)
    content = {
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "cell"},
        "numTraining": 3,
        "training": [{"image": f"{c}.nii.gz", "label": f"{c}.nii.gz"} for c in "abc"],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


REPORT = """\
Task001_X: 3 training and 0 test cases; 4 errors, 1 warning, 0 notes
voxels by label: 0 background: 324, 255 (undeclared): 36

error: images that are missing (1)
  imagesTr/c_0000.nii.gz: found no file; expected one
  -> mend the files, or write a copy without these cases: nnUNet_verify_dataset -t 1 --fix OUT

error: labels with values that dataset.json does not declare (3)
  labelsTr/a.nii.gz: found (0: 108, 255: 12); expected 0, 1 (dataset.json)
  labelsTr/b.nii.gz: found (0: 108, 255: 12); expected 0, 1 (dataset.json)
  labelsTr/c.nii.gz: found (0: 108, 255: 12); expected 0, 1 (dataset.json)
  -> nnUNet_verify_dataset -t 1 --fix OUT writes 255 → 1, in the label files and in dataset.json

warning: labels that are declared but occur in no case (1)
  dataset.json: found label 1 (cell) in no file; expected it in some
  -> take them out of dataset.json, or make sure that the right labels were exported

OUT is a new folder, such as {parent}/Task501_X
"""


def test_the_report_names_file_found_expected_and_command(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree_hash(raw)
    assert main(["-t", "1", "-p", "1"]) == 3
    said = capsys.readouterr()
    assert said.out == REPORT.replace("{parent}", str(raw.parent))
    assert said.err.splitlines()[-1] == (
        "error: Task001_X has 4 errors, listed above with what mends them"
    )
    assert tree_hash(raw) == before


def test_the_mended_copy_is_a_task_without_errors(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree_hash(raw)
    out = raw.parent / "Task501_X"
    assert main(["-t", TASK, "-p", "1", "--fix", str(out)]) == 0
    said = capsys.readouterr().out
    for line in (
        f"{out}: a copy of {raw}, mended",
        "  c: left out, images that are missing (imagesTr/c_0000.nii.gz)",
        "  labelsTr/b.nii.gz: label 255 is now 1",
        "Task501_X: 2 training and 0 test cases; 0 errors, 0 warnings, 0 notes",
        "voxels by label: 0 background: 216, 1 cell: 24",
    ):
        assert line in said.splitlines()
    assert "OUT is a new folder" not in said
    assert tree_hash(raw) == before
    assert main(["-t", "501", "-p", "1"]) == 0
    assert main(["-t", str(out), "-p", "0"]) == 0


def test_a_second_copy_does_not_overwrite_the_first(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["-t", "1", "-p", "1", "--fix", str(raw.parent / "Task501_X")]
    assert main(argv) == 0
    assert main(argv) == 2
    assert "exists and is not empty; give a new folder with --fix" in capsys.readouterr().err


def test_the_copy_obeys_the_orders(
    raw: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    voxels = np.full(SHAPE, 2.5, np.float32)
    voxels[0, 0, 0] = np.nan
    write(raw / "imagesTr" / "a_0000.nii.gz", voxels)
    orders = ["--map", "255:2", "--fill", "minimum"]
    assert main(["-t", "1", "-p", "1", "--fix", str(home / "fixed"), *orders]) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"{home / 'fixed' / TASK}: a copy of {raw}, mended" in said
    assert "  labelsTr/a.nii.gz: label 255 is now 2" in said
    assert "  imagesTr/a_0000.nii.gz: 1 voxels that were not finite are now 2.5" in said


def test_a_map_that_leaves_gaps_is_refused(
    raw: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-t", "1", "-p", "1", "--fix", str(home / "fixed"), "--map", "255:9"]) == 2
    assert "the labels would be 0, 1, 9" in capsys.readouterr().err
    assert not (home / "fixed").exists()


def test_orders_without_a_copy_are_refused(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-t", "1", "--grid", "copy"]) == 2
    assert "give --fix OUT too" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["-t", "1", "--fill", "nothing"])


def test_missing_channels_are_shown_as_a_table(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((raw / "dataset.json").read_text())
    content["modality"]["1"] = "T2"
    (raw / "dataset.json").write_text(json.dumps(content))
    assert main(["-t", "1", "-p", "1"]) == 3
    assert (
        "channels of these cases (x present, - missing, + surplus):\n"
        "              0000 0001\n"
        "  imagesTr/a   x    -\n"
        "  imagesTr/b   x    -\n"
        "  imagesTr/c   -    -\n"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["elsewhere", "with a space"])
def test_a_task_that_is_no_raw_task_is_called_by_its_path_in_commands(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    moved = tmp_path / folder / TASK
    moved.parent.mkdir()
    shutil.copytree(raw, moved)
    assert main(["-t", str(moved), "-p", "1"]) == 3
    said = capsys.readouterr().out
    assert f"nnUNet_verify_dataset -t {shlex.quote(str(moved))} --fix OUT" in said
    assert f"such as {raw.parent / 'Task501_X'}" in said  # where other commands find it


def test_a_long_report_is_cut_unless_all_is_asked(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads((raw / "dataset.json").read_text())
    content["training"] = [{"image": f"n{i}.nii.gz", "label": f"n{i}.nii.gz"} for i in range(25)]
    (raw / "dataset.json").write_text(json.dumps(content))
    assert main(["-t", "1", "-p", "1"]) == 3
    said = capsys.readouterr().out
    assert "error: images that are missing (25)" in said
    assert "  … and 15 more; --all lists them" in said and "imagesTr/n24_0000" not in said
    assert main(["-t", "1", "-p", "1", "--all"]) == 3
    said = capsys.readouterr().out
    assert "more" not in said and "imagesTr/n24_0000" in said


def test_the_report_is_also_json(raw: Path, tmp_path: Path) -> None:
    assert main(["-t", "1", "-p", "1", "--json", str(tmp_path / "report.json")]) == 3
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["counts"] == {"error": 4, "warning": 1, "note": 0}
    assert found["labels"]["a"] == {"0": 108, "255": 12}
    assert found["channels"] == {"imagesTr/c": []}
    assert found["complaints"][0] == {
        "severity": "error",
        "what": "missing_image",
        "case": "c",
        "file": "imagesTr/c_0000.nii.gz",
        "found": "no file",
        "expected": "one",
        "remedy": "mend the files, or write a copy without these cases: "
        "nnUNet_verify_dataset -t 1 --fix OUT",
    }


def test_a_folder_without_task_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-t", str(tmp_path / "nothing")]) == 3
    assert "dataset.json does not exist. Put the raw task there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        lambda: main(["-t", "1", "-p", "1"]),
        lambda: main(["-t", "1", "-p", "1", "--grid", "resample", "--fix", "OUT"]),
        lambda: plan_and_preprocess.main(
            ["-t", "1", "-tf", "1", "-tl", "1", "--verify_dataset_integrity"]
        ),
        lambda: plan_and_preprocess.main(["-t", "1", "-tf", "1", "-tl", "1", "-no_pp"]),
    ],
    ids=["verify", "fix", "plan with verification", "plan"],
)
def test_no_command_changes_the_raw_task(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[[], int]
) -> None:
    monkeypatch.chdir(tmp_path)
    before = tree_hash(raw)
    command()
    assert tree_hash(raw) == before


def test_planning_stops_at_errors_and_reports_all_tasks(
    raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = raw.with_name("Task002_Y")
    twin.mkdir()
    for path in raw.rglob("*"):
        if path.is_file():
            target = twin / path.relative_to(raw)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    argv = ["-t", "1", "2", "-tf", "1", "--verify_dataset_integrity"]
    assert plan_and_preprocess.main(argv) == 3
    said = capsys.readouterr()
    assert said.out.count("error: images that are missing (1)") == 2
    assert "Task001_X has 4 errors and Task002_Y has 4 errors, listed above" in said.err
    assert "cropping" not in said.out
