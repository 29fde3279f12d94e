"""One real console script for each exit code of docs/exit-codes.md."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

SCRIPTS = Path(sys.executable).parent
DOCUMENT = Path(__file__).parents[2] / "docs" / "exit-codes.md"
HANG_S = 300
pytestmark = pytest.mark.slow


def run(words: Sequence[str | Path], **how: object) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / str(words[0])), *map(str, words[1:])]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG_S, **how)  # type: ignore[call-overload, no-any-return]


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_2_for_a_variable_that_is_not_set(tmp_path: Path) -> None:
    known = ("nnUNet_raw_data_base", "nnUNet_raw", "nnUNet_preprocessed", "RESULTS_FOLDER")
    bare = {name: value for name, value in os.environ.items() if name not in known}
    done = run(["nnUNet_clean", "-t", "Task004_X"], env=bare, cwd=tmp_path)
    assert done.returncode == 2
    assert last_line(done).startswith("error: the environment variable nnUNet_preprocessed is not")


def test_2_for_a_setting_that_is_no_number(home: Path) -> None:
    words = ["nnUNet_evaluate_folder", "-ref", "x", "-pred", "y", "-l", "1"]
    done = run(words, env={**os.environ, "nnUNet_def_n_proc": "many"})
    assert done.returncode == 2
    assert last_line(done) == (
        "error: nnUNet_def_n_proc is 'many'; set it to a number of processes"
    )


def test_3_for_a_folder_that_is_not_there(tmp_path: Path) -> None:
    words = ["nnUNet_evaluate_folder", "-ref", tmp_path / "no", "-pred", tmp_path, "-l", "1"]
    done = run(words)
    assert done.returncode == 3
    assert str(tmp_path / "no") in last_line(done)


def test_4_for_a_disk_that_takes_no_more(home: Path) -> None:
    """`ulimit -f` stands for the disk; writing beyond it fails as on a full one."""
    source = home / "Task04_X"
    for name in ("imagesTr", "labelsTr"):
        (source / name).mkdir(parents=True)
        image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 2, (30, 30, 30)))
        sitk.WriteImage(sitk.Cast(image, sitk.sitkUInt8), str(source / name / "a.nii.gz"))
    (source / "imagesTs").mkdir()
    content = {
        "modality": {"0": "MR"},
        "labels": {"0": "background", "1": "x"},
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}],
        "test": [],
    }
    (source / "dataset.json").write_text(json.dumps(content))
    script = SCRIPTS / "nnUNet_convert_decathlon_task"
    shell = f'ulimit -f 1; exec "{script}" -i "{source}" -p 1'
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, text=True, timeout=HANG_S, cwd=home
    )
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert "may not grow further" in done.stderr and "a.nii.gz" in done.stderr


def test_5_for_a_command_that_was_asked_to_end(home: Path) -> None:
    stage = home / "preprocessed" / "Task004_X" / "nnUNetData_plans_v2.1_stage0"
    stage.mkdir(parents=True)
    for name in ("a.npz", "a.npy"):
        (stage / name).write_bytes(b"x")
    master, terminal = pty.openpty()
    command = [SCRIPTS / "nnUNet_clean", "-t", "4"]
    try:
        with subprocess.Popen(
            command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            while "Remove" not in (read := process.stdout.read(1)) and read != "?":
                assert process.poll() is None
            for _ in range(
                5 * HANG_S
            ):  # a signal just before the prompt reads is heard with the next
                if process.poll() is not None:
                    break
                process.send_signal(signal.SIGTERM)
                time.sleep(0.2)
            else:
                process.kill()
            assert process.wait(timeout=HANG_S) == 5
            assert "run the same command again to go on" in process.stderr.read()
    finally:
        os.close(master)
        os.close(terminal)
    assert (stage / "a.npy").is_file()


def test_141_without_a_word_when_the_reader_goes_away(home: Path) -> None:
    with subprocess.Popen(
        [SCRIPTS / "nnUNet_env"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=HANG_S) == 141
        assert process.stderr.read() == b""


def test_every_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == ["0", "1", "2", "3", "4", "5", "141"]
