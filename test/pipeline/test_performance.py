"""nnUNet_train --other_use: figures of training steps, with results left as they are."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetlike.run.run_training import main

WORDS = ["3d_fullres", "nnUNetPlusPlusTrainerV2", "901", "0"]
OPTIONS = ["--num_workers=0", "--device=cpu", "--fp32", "--seed=7"]


def digest(folder: Path) -> str:
    """Hash of names and contents of everything below a folder."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(f"{path.relative_to(folder)} {path.stat().st_mtime_ns}".encode())
        if path.is_file():
            found.update(path.read_bytes())
    return found.hexdigest()


def test_fps_prints_and_writes_figures_and_makes_no_results(
    tiny_task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "figures"
    measured = ["--other_use=FPS", "--steps=3", "--warmup=1", f"--output={output}"]
    assert main([*WORDS, *OPTIONS, *measured]) == 0
    out = capsys.readouterr().out
    assert "Task901_Tiny, fold 0: 3 steps timed after 1 to warm up" in out
    figures = json.loads((output / "fps.json").read_text())
    assert f"FPS of all       {figures['fps']:.2f}" in out
    assert figures["fps"] == pytest.approx(figures["batch_size"] / figures["mean_s"])
    assert figures["min_s"] <= figures["mean_s"] <= figures["max_s"]
    (process,) = figures["processes"]
    assert process["wait_s"] + process["compute_s"] == pytest.approx(process["mean_s"])
    assert process["wait_s"] > 0
    assert (figures["batch_size"], figures["share_of_peak"], figures["skipped_steps"]) == (
        2, None, 0,
    )  # fmt: skip
    assert not (tiny_task / "results").exists()


def test_prof_prints_a_table_and_writes_a_trace_and_makes_no_results(
    tiny_task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main([*WORDS, *OPTIONS, "--other_use=prof", "--warmup=1"]) == 0
    out = capsys.readouterr().out
    assert "1 step profiled after 1 to warm up" in out
    assert "Self CPU %" in out
    assert "aten::" in out
    trace = tmp_path / "here" / "output.prof"
    assert "convolution" in trace.read_text()
    assert json.loads(trace.read_text())["traceEvents"]
    assert [path.name for path in trace.parent.iterdir()] == ["output.prof"]
    assert not (tiny_task / "results").exists()


def test_the_results_of_a_fold_stay_as_they_are(
    tiny_task: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short = ["--epochs=1", "--iterations=1", "--val_iterations=1"]
    assert main([*WORDS, *OPTIONS, *short]) == 0
    before = digest(tiny_task / "results")
    caplog.clear()
    for use in ("fps", "prof"):
        measured = [f"--other_use={use}", "--steps=1", "--warmup=0", f"--output={tmp_path}"]
        assert main([*WORDS, *OPTIONS, *measured]) == 0
    assert digest(tiny_task / "results") == before
    assert "will be replaced" not in caplog.text


def test_a_dummy_load_needs_nothing_unpacked_and_waits_for_nothing(
    tiny_task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = ["--other_use=fps", "--steps=2", "--warmup=1", "--dummy_load"]
    assert main([*WORDS, *OPTIONS, *measured, f"--output={tmp_path}"]) == 0
    assert "one batch repeated (--dummy_load)" in capsys.readouterr().out
    figures = json.loads((tmp_path / "fps.json").read_text())
    assert figures["processes"][0]["wait_s"] < 0.5 * figures["mean_s"]
    assert not list((tiny_task / "preprocessed").rglob("*.npy"))


def in_two_processes(home: Path, output: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nnunetlike.run.run_training", *WORDS, *OPTIONS, "--nproc=2"]
    return subprocess.run(
        [*command, "--dbs", f"--output={output}", *words],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.ddp
def test_two_processes_are_profiled_in_one_of_them(tiny_task: Path, tmp_path: Path) -> None:
    output = tmp_path / "figures"
    fold = tiny_task / f"results/nnUNet/3d_fullres/Task901_Tiny/{WORDS[1]}__nnUNetPlansv2.1/fold_0"
    fold.mkdir(parents=True)
    (fold / "model_final_checkpoint.model").write_text("weights of a training")
    before = digest(tiny_task / "results")
    done = in_two_processes(tiny_task, output, "--other_use=prof", "--warmup=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Self CPU time total") == 1
    assert "DistributedDataParallel.forward" in done.stdout
    assert [path.name for path in output.iterdir()] == ["output.prof"]
    assert digest(tiny_task / "results") == before


@pytest.mark.slow
@pytest.mark.ddp
def test_what_is_wrong_is_said_once_before_processes_start(tiny_task: Path, tmp_path: Path) -> None:
    done = in_two_processes(tiny_task, tmp_path, "--other_use=fps", "--steps=0")
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: --steps 0: give 1 or more"]


@pytest.mark.parametrize("options", [["--other_use=fast"], ["--steps=3"]])
def test_wrong_arguments_end_with_2(
    tiny_task: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main([*WORDS, *options])
    except SystemExit as left:
        status = left.code
    assert status == 2
    assert "error: " in capsys.readouterr().err
