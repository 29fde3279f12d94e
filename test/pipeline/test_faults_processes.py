"""Several processes of one training: one fails, and the run ends soon, says why and can go on.

Faults are put into one process by a module that Python imports at its start.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetlike.core.serialization import load_json
from nnunetlike.networks.model_files import FINAL, LATEST
from nnunetlike.run.run_training import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ddp,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are listed by /proc"),
]
ROOT = Path(__file__).resolve().parents[2]
HANG_S = 240
END_S = 60
MARK = "NNUNETLIKE_TEST_RUN"
FAULT = """
import importlib, os

if os.environ.get("RANK") == os.environ.get("FAULT_RANK"):
    module, name = os.environ["FAULT_AT"].split(":")
    owner = importlib.import_module(module)
    *inner, name = name.split(".")
    for part in inner:
        owner = getattr(owner, part)
    function, calls = getattr(owner, name), []

    def faulty(*args, **settings):
        calls.append(1)
        if len(calls) == int(os.environ["FAULT_CALL"]):
            open(os.environ["FAULT_NOTE"], "w").close()
            exec(os.environ["FAULT"], {"args": args, "os": os})
        return function(*args, **settings)

    setattr(owner, name, faulty)
"""
STEP = "nnunetlike.training.distributed:Distributed.step"
KILL = "os.kill(os.getpid(), 9)"
BUG = "raise RuntimeError('a fault of ours')"
TRAINING = (
    "3d_fullres", "nnUNetTrainerV2_DDP", "901", "0", "--dbs", "--epochs=2", "--iterations=4",
    "--val_iterations=1", "--num_workers=1", "--seed=7", "--device=cpu", "--fp32",
)  # fmt: skip


@dataclass
class Ended:
    """What became of a command."""

    code: int
    said: str
    after_s: float
    """From the fault to the end."""

    @property
    def last(self) -> str:
        return self.said.rstrip().splitlines()[-1]


@pytest.fixture
def faulty_run(tiny_task: Path, tmp_path: Path) -> Callable[..., Ended]:
    """Trains in several processes with a fault in one; asserts that nothing is left of them."""
    (tmp_path / "sitecustomize.py").write_text(FAULT)

    def run(
        fault: str = "", *, at: str = STEP, rank: int = 1, call: int = 3, processes: int = 2,
        words: Sequence[str] = TRAINING, disturb: Callable[[int], None] | None = None,
        start: Sequence[str] = ("-m", "nnunetlike.run.run_training"),
    ) -> Ended:  # fmt: skip
        mark, note = uuid.uuid4().hex, tmp_path / "fault"
        note.unlink(missing_ok=True)
        before = shared_memory()
        count = ["--nproc", str(processes)] if start[-1].endswith("run_training") else []
        command = subprocess.Popen(
            [sys.executable, *start, *words, *count], cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={
                **os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", MARK: mark,
                "OMP_NUM_THREADS": "1", "FAULT": fault, "FAULT_AT": at, "FAULT_CALL": str(call),
                "FAULT_RANK": str(rank) if fault else "none", "FAULT_NOTE": str(note),
            },
        )  # fmt: skip
        try:
            if disturb is not None:
                _wait_for(note)
                disturb(command.pid)
            said, _ = command.communicate(timeout=HANG_S)
        finally:
            with_mark = living(mark)
            for process in with_mark:
                os.kill(process, signal.SIGKILL)
        after_s = time.time() - note.stat().st_mtime if note.exists() else 0.0
        assert with_mark == []
        assert shared_memory() <= before
        return Ended(command.returncode, said, after_s)

    return run


def shared_memory() -> set[Path]:
    """Return pieces of shared memory; semaphores come and go with the tests beside this one."""
    return {path for path in Path("/dev/shm").iterdir() if not path.name.startswith("sem.")}


def _wait_for(path: Path) -> None:
    end = time.monotonic() + HANG_S
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.1)


def living(mark: str) -> list[int]:
    """Return the processes whose environment has a mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # it ended meanwhile
                continue
    return found


def folder_of(home: Path, trainer: str = "nnUNetTrainerV2_DDP") -> Path:
    models = home / "results" / "nnUNet" / "3d_fullres" / "Task901_Tiny"
    return models / f"{trainer}__nnUNetPlansv2.1" / "fold_0"


def content_of(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=False)  # type: ignore[no-any-return]


def test_a_killed_process_ends_the_run_which_goes_on_with_any_number_of_processes(
    tiny_task: Path, faulty_run: Callable[..., Ended]
) -> None:
    ended = faulty_run(KILL)
    assert ended.code == 4 and ended.after_s < END_S
    assert "process 1 of 2 (counted from 0) was killed by SIGKILL" in ended.last
    assert ended.last.count("Go on with: nnUNet_train 3d_fullres") == 1
    assert content_of(folder_of(tiny_task) / LATEST)["progress"]["train_steps"] == 2
    one = [word for word in TRAINING if not word.startswith("--epochs")]
    assert main([*one, "--epochs=1", "-c", "--disable_validation_inference"]) == 0
    three = faulty_run(words=[*TRAINING, "-c"], processes=3)
    assert three.code == 0
    assert "continuing after epoch 0 with" in three.said
    assert "a batch of 2 cannot be shared by 3 processes" in three.said
    assert content_of(folder_of(tiny_task) / FINAL)["epoch"] == 2
    assert (folder_of(tiny_task) / "validation_raw" / "summary.json").is_file()


def test_the_traceback_of_the_process_that_failed_is_told_last(
    faulty_run: Callable[..., Ended],
) -> None:
    ended = faulty_run(BUG)
    assert ended.code == 1 and ended.after_s < END_S
    told = ended.said.rpartition(
        "error: process 1 of 2 (counted from 0) met a fault of the program"
    )
    assert told[2].startswith(":\nTraceback (most recent call last):")
    assert ended.last == "RuntimeError: a fault of ours"


def test_a_process_killed_in_validation_costs_its_case_only(
    tiny_task: Path, faulty_run: Callable[..., Ended]
) -> None:
    at = "nnunetlike.inference.validate:predict_slabs"
    words = [word.replace("--epochs=2", "--epochs=1") for word in TRAINING]
    ended = faulty_run(KILL, at=at, call=1, words=words)
    assert ended.code == 4 and ended.after_s < END_S
    folder = folder_of(tiny_task)
    assert (folder / FINAL).is_file()
    assert not (folder / "validation_raw" / "summary.json").exists()
    done = {path: path.stat().st_mtime_ns for path in (folder / "validation_raw").glob("*.nii.gz")}
    assert main([*words, "-val"]) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(load_json(folder / "validation_raw" / "summary.json")["results"]["all"]) == 2


def test_a_process_killed_while_saving_leaves_the_checkpoint_before(
    tiny_task: Path, faulty_run: Callable[..., Ended]
) -> None:
    at = "torch:save"
    fault = f"args[1].write(b'half'); args[1].flush(); {KILL}"
    ended = faulty_run(fault, at=at, rank=0, call=2)
    assert ended.code == 4 and "process 0 of 2 (counted from 0) was killed" in ended.last
    saved = sorted(folder_of(tiny_task).glob("model_*.model"))
    assert len(saved) == 1 and content_of(saved[0])["epoch"] >= 1
    assert main([*TRAINING, "-c", "--disable_validation_inference"]) == 0


def test_a_loss_that_is_nan_in_one_process_skips_the_step_in_all_and_names_its_case(
    faulty_run: Callable[..., Ended], tiny_task: Path
) -> None:
    ended = faulty_run("args[1].data.fill_(float('nan'))")
    assert ended.code == 0
    [line] = re.findall(r"warning: epoch 0, step 2: .*", ended.said)
    assert re.search(r"the step is skipped\. Its cases: c_\d$", line)  # that of one process


def test_a_taken_port_is_told_before_anything_begins(
    tiny_task: Path, faulty_run: Callable[..., Ended]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = faulty_run(words=[*TRAINING, "--master_port", str(port)])
        assert ended.code == 4
        assert ended.last.startswith(f"error: port {port} cannot be used (Address already in use)")
        assert not folder_of(tiny_task).exists()
    assert main([*TRAINING, "--master_port", str(port)]) == 2  # nobody to meet
    ended = faulty_run(KILL, words=[*TRAINING, "--master_port", str(port)])
    assert ended.code == 4 and "was killed by SIGKILL" in ended.last
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_saves_and_ends_with_5(
    tiny_task: Path, faulty_run: Callable[..., Ended], number: signal.Signals
) -> None:
    words = [word.replace("--iterations=4", "--iterations=100000") for word in TRAINING]

    def send(launcher: int) -> None:
        os.kill(launcher, number)

    ended = faulty_run("pass", words=words, disturb=send)  # in the third step
    assert ended.code == 5 and ended.after_s < END_S
    assert f"were ended by {number.name}. Go on with: nnUNet_train 3d_fullres" in ended.last
    assert ended.last.endswith("--nproc 2 -c")
    assert content_of(folder_of(tiny_task) / LATEST)["progress"]["train_steps"] > 0


def test_the_processes_end_with_a_launcher_that_is_killed(
    tiny_task: Path, faulty_run: Callable[..., Ended]
) -> None:
    words = [word.replace("--iterations=4", "--iterations=100000") for word in TRAINING]

    def kill_and_wait(launcher: int) -> None:
        os.kill(launcher, signal.SIGKILL)
        time.sleep(15)  # those who live longer are found

    assert faulty_run("pass", words=words, disturb=kill_and_wait).code == -signal.SIGKILL


def test_the_script_of_the_public_port_trains_from_any_folder(
    tiny_task: Path, faulty_run: Callable[..., Ended]
) -> None:
    start = [
        "-m", "torch.distributed.launch", "--nproc_per_node=2", "--master_port=0",
        str(ROOT / "nnunetlike" / "run" / "run_training_DDP.py"),
    ]  # fmt: skip
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        start[3] = f"--master_port={probe.getsockname()[1]}"
    trainer = "nnUNetPlusPlusTrainerV2_hypDDP"
    words = [word.replace("nnUNetTrainerV2_DDP", trainer) for word in TRAINING]
    ended = faulty_run(start=start, words=words)
    assert ended.code == 0, ended.said
    folder = folder_of(tiny_task, trainer)
    assert load_json(folder / "debug.json")["processes"] == 2
    assert content_of(folder / FINAL)["epoch"] == 2
    assert (folder / "validation_raw" / "summary.json").is_file()
    assert "mean       Dice" in ended.said
