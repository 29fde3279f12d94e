"""The commands around data, run as a user would."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.run import (
    convert_decathlon_task,
    determine_postprocessing,
    evaluate_folder,
    plot_task_pngs,
)

SHAPE = (4, 12, 10)
MODEL = Path("nnUNet/3d_fullres/Task001_X/nnUNetTrainerV2__nnUNetPlansv2.1")
CONTENT = {
    "modality": {"0": "T1", "1": "T2"},
    "labels": {"0": "background", "1": "x"},
    "training": [{"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"}
                 for c in ("a", "b")],
    "test": ["./imagesTs/t.nii.gz"],
}  # fmt: skip


def label(*, island: bool = False) -> Any:
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[1:3, 2:8, 2:7] = 1
    voxels[0, 11, 9] = island
    return voxels


def write(path: Path, voxels: Any) -> None:
    geometry = Geometry(shape=SHAPE, spacing=(2.0, 1.0, 1.0))
    format_of(path).write_label(voxels, geometry, path)


@pytest.fixture
def raw(home: Path) -> Path:
    """A raw task of two training cases and a test case, two channels each."""
    folder = home / "raw" / "nnUNet_raw_data" / "Task001_X"
    rng = np.random.default_rng(0)
    for name, cases in (("imagesTr", "ab"), ("imagesTs", "t")):
        for case in cases:
            for channel in range(2):
                voxels = rng.normal(size=SHAPE).astype(np.float32)
                write(folder / name / f"{case}_{channel:04d}.nii.gz", voxels)
    for case in "ab":
        write(folder / "labelsTr" / f"{case}.nii.gz", label())
    (folder / "dataset.json").write_text(json.dumps(CONTENT))
    return folder


@pytest.mark.parametrize(
    "main",
    [
        convert_decathlon_task.main,
        determine_postprocessing.main,
        evaluate_folder.main,
        plot_task_pngs.main,
    ],
)
def test_wrong_usage_ends_with_code_2(
    main: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in ([], ["--no-such-option"]):
        with pytest.raises(SystemExit) as stop:
            main(argv)
        assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0


def test_conversion_tells_what_it_wrote(
    raw: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = home / "Task07_Y"
    raw.rename(source)
    assert convert_decathlon_task.main(["-i", str(source), "-p", "1"]) == 3
    assert "needs no conversion" in capsys.readouterr().err
    description = {**CONTENT, "training": [{"image": "a_0000.nii.gz", "label": "a_0000.nii.gz"}]}
    (source / "dataset.json").write_text(json.dumps(description))
    assert (
        convert_decathlon_task.main(["-i", f"{source}/", "-p", "1", "--output-task-id", "9"]) == 0
    )
    line = capsys.readouterr().out.strip()
    assert line.endswith("Task009_Y: 4 training images, 2 labels, 2 test images")


def test_conversion_without_a_home_says_which_variable_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("nnUNet_raw_data_base", raising=False)
    assert convert_decathlon_task.main(["-i", str(tmp_path / "Task01_X")]) == 2
    assert "nnUNet_raw_data_base is not set" in capsys.readouterr().err


def test_conversion_refuses_a_number_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        convert_decathlon_task.main(["-i", str(tmp_path), "-output_task_id", "x"])
    assert "'x' is not a task number" in capsys.readouterr().err


def test_evaluation_prints_a_table_and_writes_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in "ab":
        write(tmp_path / "pred" / f"{case}.nii.gz", label(island=case == "b"))
        write(tmp_path / "ref" / f"{case}.nii.gz", label())
    argv = ["-ref", str(tmp_path / "ref"), "-pred", str(tmp_path / "pred"), "-l", "1", "2"]
    assert evaluate_folder.main([*argv, "--advanced", "-num-processes", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[0] == "label" and lines[0].endswith("Hausdorff Distance 95")
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[1].split()[:2] == ["1", "0.9959"]
    assert lines[2].split()[:2] == ["2", "n/a"]
    assert lines[3].split()[:2] == ["foreground", "0.9959"]
    assert "2 cases evaluated" in lines[4]
    summary = json.loads((tmp_path / "pred" / "summary.json").read_text())
    assert len(summary["results"]["all"]) == 2


def test_evaluation_of_a_missing_folder_ends_with_code_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["-ref", str(tmp_path / "no"), "-pred", str(tmp_path), "-l", "1"]
    assert evaluate_folder.main(argv) == 3
    assert "is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("copied", [True, False])
def test_postprocessing_of_a_model_is_determined_from_its_folds(
    raw: Path, home: Path, capsys: pytest.CaptureFixture[str], copied: bool
) -> None:
    model = home / "results" / MODEL
    references = model / "gt_niftis" if copied else home / "preprocessed/Task001_X/gt_segmentations"
    for case in "ab":
        write(references / f"{case}.nii.gz", label())
    prediction = model / "fold_0" / "validation_raw"
    write(prediction / "a.nii.gz", label(island=True))
    scored = {"results": {"all": [{"0": {}, "1": {}}]}}
    (prediction / "summary.json").write_text(json.dumps(scored))
    assert (
        determine_postprocessing.main(["-m", "3d_fullres", "-t", "1", "-num_processes", "1"]) == 0
    )
    text = capsys.readouterr().out
    assert "1 of 2 cases have no prediction yet" in text
    assert "the largest component is kept of [[1]]" in text
    assert json.loads((model / "postprocessing.json").read_text())["for_which_classes"] == [[1]]


def test_postprocessing_without_references_or_model_is_refused(
    raw: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["-m", "3d_fullres", "-t", "Task001_X", "-num_processes", "1"]
    assert determine_postprocessing.main(argv) == 3
    assert "no references" in capsys.readouterr().err
    (home / "preprocessed/Task001_X/gt_segmentations").mkdir(parents=True)
    assert determine_postprocessing.main(argv) == 2
    assert "train the model first" in capsys.readouterr().err


def test_raw_cases_are_drawn(raw: Path, tmp_path: Path) -> None:
    argv = ["-t", "1", "-o", str(tmp_path / "png"), "--use-raw", "-num_processes", "1"]
    assert plot_task_pngs.main([*argv, "-modality_idx", "1"]) == 0
    assert sorted(path.name for path in (tmp_path / "png").iterdir()) == ["a.png", "b.png"]
    assert imread(tmp_path / "png" / "a.png").ndim == 3


def test_predictions_are_drawn_with_and_without_a_reference(raw: Path, tmp_path: Path) -> None:
    for case in "at":
        write(tmp_path / "pred" / f"{case}.nii.gz", label(island=True))
    argv = ["-t", "1", "-o", str(tmp_path / "png"), "--predictions", str(tmp_path / "pred")]
    assert plot_task_pngs.main([*argv, "-num_processes", "1"]) == 0
    widths = {path.name: imread(path).shape[1] for path in (tmp_path / "png").iterdir()}
    assert set(widths) == {"a.png", "t.png"} and widths["a.png"] > widths["t.png"]


def test_preprocessed_cases_of_the_highest_resolution_are_drawn(raw: Path, home: Path) -> None:
    folder = home / "preprocessed" / "Task001_X"
    record = CaseRecord(
        original_size=SHAPE,
        original_spacing=(2.0, 1.0, 1.0),
        image_files=("x",),
        label_file="y",
        itk_origin=(0.0, 0.0, 0.0),
        itk_spacing=(1.0, 1.0, 2.0),
        itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        crop_box=((0, 4), (0, 12), (0, 10)),
        classes=(0.0, 1.0),
        size_after_cropping=SHAPE,
    ).resampled(SHAPE, (2.0, 1.0, 1.0), None)
    data = np.stack([label(), label(), label()]).astype(np.float32)
    for stage, case in (("stage0", "low"), ("stage1", "a"), ("2D_stage0", "flat")):
        store = CaseStore(folder / f"nnUNetData_plans_v2.1_{stage}")
        store.folder.mkdir(parents=True)
        store.write(case, data, record)
    (folder / "dataset.json").write_text(json.dumps(CONTENT))
    assert plot_task_pngs.main(["-t", "1", "-o", str(home / "png"), "-num_processes", "1"]) == 0
    assert [path.name for path in (home / "png").iterdir()] == ["a.png"]


def test_what_cannot_be_drawn_is_said(
    raw: Path, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["-t", "1", "-o", str(tmp_path / "png"), "-num_processes", "1"]
    assert plot_task_pngs.main([*argv, "--use_raw", "-modality_idx", "2"]) == 2
    assert "the task has 0 (T1), 1 (T2)" in capsys.readouterr().err
    assert plot_task_pngs.main([*argv, "--predictions", str(tmp_path)]) == 3
    assert "expected files such as a.nii.gz" in capsys.readouterr().err
    (home / "preprocessed" / "Task001_X").mkdir(parents=True)
    (home / "preprocessed" / "Task001_X" / "dataset.json").write_text(json.dumps(CONTENT))
    assert plot_task_pngs.main(argv) == 3
    assert "--use_raw" in capsys.readouterr().err
    write(tmp_path / "pred" / "a.nii.gz", label()[1:])
    assert plot_task_pngs.main([*argv, "--predictions", str(tmp_path / "pred")]) == 3
    assert "a.nii.gz has (3, 12, 10) voxels" in capsys.readouterr().err
