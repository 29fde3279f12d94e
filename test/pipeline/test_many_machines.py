"""The commands of the how-to on several machines run as they stand there, on this one.

What changes is names of hosts, ports and numbers of GPUs; and the training is short.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nnunetlike.run.plan_and_preprocess import build_parser as plan_parser
from nnunetlike.run.predict import build_parser as predict_parser

pytestmark = [pytest.mark.slow, pytest.mark.ddp]
ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "many-machines.md"
HANG_S = 240
TASK = "Task901_Tiny"
BRIEFLY = (
    "--iterations=1 --val_iterations=1 --num_workers=0 --seed=7 --device=cpu --fp32 "
    "--ddp_timeout=120"
)
Start = Callable[..., "subprocess.Popen[str]"]


def commands(containing: str) -> str:
    """Return the block of commands of the page that contains a text."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (found,) = [block for block in blocks if containing in block]
    return str(found)


def here(text: str, *, port: int, processes: int = 1, options: str = "--epochs=1") -> str:
    """Return commands of the page for this machine and the tiny task."""
    for old, new in (
        ("node1:29400", f"127.0.0.1:{port}"),
        (":29400", f":{port}"),
        ("--nproc_per_node 8", f"--nproc_per_node {processes}"),
        ("--rdzv-backend", "--local-addr 127.0.0.1 --rdzv-backend"),
        (" 3 0 --dbs", f" 901 0 --dbs {BRIEFLY} {options}"),
    ):
        text = text.replace(old, new)
    return text


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder with `torchrun` of this Python, for the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program(folder / "torchrun", f'exec "{sys.executable}" -m torch.distributed.run "$@"')
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def shell(tools: Path, tiny_task: Path) -> Iterator[Start]:
    """Starts a shell with commands; whatever is left of it ends with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, **variables: str) -> subprocess.Popen[str]:
        environment = {
            **os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables,
        }  # fmt: skip
        process = subprocess.Popen(
            ["bash", "-e", "-c", text], env=environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()


def ends(processes: Sequence[subprocess.Popen[str]]) -> list[str]:
    """Return what processes say that must end well."""
    said = [process.communicate(timeout=HANG_S)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), "\n".join(said)
    return said


def fold_folder(home: Path) -> Path:
    model = home / "results/nnUNet/3d_fullres" / TASK
    return model / "nnUNetPlusPlusTrainerV2_hypDDP__nnUNetPlansv2.1" / "fold_0"


def epochs_of(folder: Path) -> list[int]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["epoch"] for row in rows if "epoch" in row and "train_loss" in row]


def assert_is_trained_and_validated(folder: Path) -> None:
    assert (folder / "model_final_checkpoint.model").is_file()
    validation = folder / "validation_raw"
    assert {path.name for path in validation.iterdir()} == {
        "c_4.nii.gz", "c_5.nii.gz", "summary.json", "validation_args.json",
    }  # fmt: skip


def test_two_nodes_find_one_another_train_and_share_the_validation(
    shell: Start, port: int, tiny_task: Path
) -> None:
    text = here(commands("--nnodes 2 --nproc_per_node"), port=port)
    said = ends([shell(text), shell(text)])
    assert_is_trained_and_validated(fold_folder(tiny_task))
    together = "\n".join(said)
    assert together.count("2 processes share 2 validation cases: 1, 1") == 1
    assert together.count("validation of 2 cases in ") == 1


def test_the_slurm_script_starts_a_launcher_on_each_node(
    shell: Start, port: int, tools: Path, tiny_task: Path
) -> None:
    program(tools / "scontrol", '[ "$*" = "show hostnames node[1-2]" ] && echo 127.0.0.1; echo x')
    program(tools / "srun", '"$@" & one=$!; "$@" & wait $one && wait $!')
    variables = {
        "SLURM_JOB_NODELIST": "node[1-2]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "1",
        "SLURM_JOB_ID": "17",
    }  # fmt: skip
    script = commands("#SBATCH")
    ends([shell(here(script, port=port), SLURM_ARRAY_TASK_ID="1", **variables)])
    folder = fold_folder(tiny_task)
    assert_is_trained_and_validated(folder)
    before = epochs_of(folder)
    text = here(script, port=port, options="--epochs=2")
    ends([shell(text, SLURM_ARRAY_TASK_ID="2", **variables)])
    assert epochs_of(folder) == [*before, before[-1] + 1]


def test_a_killed_process_comes_back_and_training_goes_on_from_the_last_checkpoint(
    shell: Start, port: int, tiny_task: Path
) -> None:
    text = here(commands("--max-restarts"), port=port, processes=2, options="--epochs=80")
    assert_goes_on_after_a_kill([shell(text)], fold_folder(tiny_task))


def test_a_process_killed_on_one_node_makes_all_nodes_go_on_from_the_last_checkpoint(
    shell: Start, port: int, tiny_task: Path
) -> None:
    text = here(commands("--nnodes 2 --nproc_per_node"), port=port, options="--epochs=80")
    text = text.replace("--nnodes 2", "--nnodes 2 --max-restarts 3")
    assert_goes_on_after_a_kill([shell(text), shell(text)], fold_folder(tiny_task))


def assert_goes_on_after_a_kill(launchers: Sequence[subprocess.Popen[str]], folder: Path) -> None:
    wait_for((folder / "model_latest.model").is_file, launchers[0])
    os.kill(processes_below(launchers[-1].pid)[-1], signal.SIGKILL)
    said = "\n".join(ends(launchers))
    # of epoch 49, or what the process that lived saved when it met the death of the other
    assert (
        len(re.findall(r"continuing after epoch \d+ (and \d+ training batches )?with ", said)) == 1
    )
    assert epochs_of(folder) == list(range(80))
    assert_is_trained_and_validated(folder)


def test_the_dask_commands_start_a_cluster_and_name_options_that_exist(
    shell: Start, port: int, tools: Path
) -> None:
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    program(tools / "dask", f'exec "{sys.executable}" -m dask "$@"')
    lines = [line.partition("#")[0] for line in commands("dask scheduler").splitlines()]
    scheduler, worker, planning, prediction = (
        line.replace("node1:8786", f"127.0.0.1:{port}").replace("--nworkers 8", "--nworkers 2")
        for line in lines
    )
    address = f"tcp://127.0.0.1:{port}"
    shell(f"{scheduler} --host 127.0.0.1 --port {port} --no-dashboard")
    shell(f"{worker} --no-dashboard")
    with distributed.Client(address, timeout=HANG_S, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=HANG_S)
        assert list(client.nthreads().values()) == [1, 1]
    for parser, line in ((plan_parser(), planning), (predict_parser(), prediction)):
        assert parser.prog == line.split()[0]
        assert parser.parse_args(line.split()[1:]).dask == address


def processes_below(pid: int) -> list[int]:
    """Return the processes of a training that a launcher has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"nnunetlike.run.run_training_DDP" in words and parent == pid:
            found.append(int(path.name))
    return sorted(found)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + HANG_S
    while not condition():
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.05)
