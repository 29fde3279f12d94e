"""The four scripts that train or measure in one command, on a task that trains within seconds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[1]
BRIEFLY = (
    "--epochs=1", "--iterations=1", "--val_iterations=1", "--num_workers=0", "--device=cpu",
    "--fp32", "--seed=7",
)  # fmt: skip
MEASURED = ("--steps=2", "--warmup=1", "--num_workers=0", "--device=cpu", "--fp32")
TASK = "Task901_Tiny"


@pytest.fixture
def folder(tiny_task: Path) -> Path:
    """The folder that -path names, with a preprocessed task."""
    folder = tiny_task / "a folder"
    folder.mkdir()
    (tiny_task / "preprocessed").rename(folder / "nnUNet_preprocessed")
    return folder


def run(script: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", str(SCRIPTS / script), *map(str, words)],
        cwd=cwd,
        env=os.environ | {"PATH": path, "nnUNet_n_proc_DA": "0", "nnUNet_results": "/elsewhere"},
        capture_output=True,
        text=True,
        timeout=240,
    )


def assert_dice_comes_last(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-3:]
    for line, label in zip(last, ("1", "2", "mean"), strict=True):
        assert re.fullmatch(rf"Tiny {label}_Dice \(val\): (\d+\.\d{{4}}|n/a.*)", line)
    (summary,) = (folder / "RESULTS_FOLDER").glob(
        "nnUNet/3d_fullres/*/*/fold_0/validation_raw/summary.json"
    )
    assert json.loads(summary.read_text())["task"] == TASK


@pytest.mark.slow
def test_full_training_of_one_process_ends_with_its_dice(folder: Path, tmp_path: Path) -> None:
    done = run("train_full_1p.sh", "-path", folder, "-task=901", "--", *BRIEFLY, cwd=tmp_path)
    assert_dice_comes_last(done, folder)


@pytest.mark.slow
@pytest.mark.ddp
def test_full_training_of_two_processes_ends_with_its_dice(folder: Path, tmp_path: Path) -> None:
    words = ["-path", folder, "-task", TASK, "-fold", "0", "-nproc", 2, "--", *BRIEFLY]
    assert_dice_comes_last(run("train_full_8p.sh", *words, cwd=tmp_path), folder)


@pytest.mark.slow
def test_performance_of_one_process_ends_with_its_fps(folder: Path, tmp_path: Path) -> None:
    words = ["-path", folder, "-task", TASK, "-output", "figures", "--", *MEASURED]
    done = run("train_performance_1p.sh", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "figures" / "fps.json").read_text())
    last = done.stdout.splitlines()[-1]
    assert last == f"FPS: {figures['fps']:.2f} (processes: 1, batch: 2)"
    assert not (folder / "RESULTS_FOLDER").exists()


@pytest.mark.slow
@pytest.mark.ddp
def test_performance_of_two_processes_is_that_of_both(folder: Path, tmp_path: Path) -> None:
    words = ["--path", folder, "--task", TASK, "--nproc=2", "--", *MEASURED]
    done = run("train_performance_8p.sh", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "fps.json").read_text())
    last = done.stdout.splitlines()[-1]
    assert last == f"FPS: {figures['fps']:.2f} (processes: 2, batch: 2)"
    assert [process["samples"] for process in figures["processes"]] == [1, 1]
    assert figures["fps"] == pytest.approx(2 / max(p["mean_s"] for p in figures["processes"]))
    assert not (folder / "RESULTS_FOLDER").exists()


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("train_full_1p.sh", [], "-path DIR is missing"),
        ("train_full_1p.sh", ["-path", "/nowhere"], "/nowhere: give a folder that exists"),
        ("train_full_1p.sh", ["-path", ".", "-nproc", "2"], "started by the _8p script"),
        ("train_full_1p.sh", ["-path", ".", "-output=x"], "no option is called -output"),
        ("train_full_8p.sh", ["-path", ".", "-nproc", "0"], "-nproc 0: give 1 or more"),
        ("train_full_8p.sh", ["-path", ".", "--epochs", "1"], "options of nnUNet_train go after"),
        ("train_performance_1p.sh", ["-path"], "-path needs a value"),
        ("train_performance_8p.sh", ["somewhere"], "somewhere belongs to no option"),
    ],
)
def test_wrong_arguments_end_with_2(
    tmp_path: Path, script: str, words: list[str], said: str
) -> None:
    done = run(script, *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["full", "performance"])
@pytest.mark.parametrize("mode", ["1p", "8p"])
def test_every_script_explains_itself(tmp_path: Path, kind: str, mode: str) -> None:
    done = run(f"train_{kind}_{mode}.sh", "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"usage: bash test/train_{kind}_{mode}.sh -path DIR" in done.stdout
    assert ("-nproc N" in done.stdout) == (mode == "8p")
    assert "read_options" not in done.stdout


def test_one_path_sets_the_three_folders(tmp_path: Path) -> None:
    script = (
        f'cd "{tmp_path}" && source "{SCRIPTS}/env.sh" . && echo "$nnUNet_raw_data_base" '
        '"$nnUNet_preprocessed" "$RESULTS_FOLDER" "${nnUNet_results-none}"'
    )
    environment = os.environ | {"nnUNet_results": "/elsewhere"}
    done = subprocess.run(
        ["bash", "-euc", script], env=environment, capture_output=True, text=True, timeout=60
    )
    names = ("nnUNet_raw", "nnUNet_preprocessed", "RESULTS_FOLDER")
    assert done.stdout.split() == [*(str(tmp_path / name) for name in names), "none"]
