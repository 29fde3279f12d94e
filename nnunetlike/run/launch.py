"""Several processes of one training: starting them here, and being one that was started.

torch's elastic agent starts and watches them, whether torchrun, torch.distributed.launch or
`nnUNet_train --nproc N` asks for it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    ProcessFailure,
    get_error_handler,
)
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from nnunetlike.core import logs
from nnunetlike.core.errors import (
    InterruptedRunError,
    PeerError,
    ResourceError,
    UsageError,
)
from nnunetlike.core.resources import available_cores
from nnunetlike.run.command_line import BUG
from nnunetlike.training.distributed import Distributed, connect
from nnunetlike.training.runtime import Runtime, choose_device, choose_precision

MODULE = "nnunetlike.run.run_training_DDP"
THREADS = "OMP_NUM_THREADS"
END_S = 20.0
"""How long a process that lost another waits for the launcher to end it."""

logger = logging.getLogger(__name__)


def is_launched() -> bool:
    """Tell whether a launcher has started this process as one of several."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def processes_of_this_machine() -> int:
    """Return how many processes the launcher started on this machine; 1 without a launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launch(
    words: Sequence[str],
    processes: int,
    *,
    port: int | None = None,
    device: str | None = None,
    onward: Callable[[], str] = str,
) -> int:
    """Train in several processes of this machine and return the exit status of the first to fail.

    Args:
        words: arguments of nnUNet_train.
        processes: how many.
        port: where they meet; None takes a free one.
        device: what the user asked for, `cpu` or `cuda`; None takes GPUs where there are any.
        onward: gives a sentence on how to go on after resources failed.

    Raises:
        UsageError: the number or the device cannot be.
        ResourceError: the port is taken, or a process failed.
        InterruptedRunError: a signal came, after which all processes saved and ended.
    """
    _require(processes, device)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint=f"127.0.0.1:{_usable(port)}",
        max_restarts=0,
        monitor_interval=0.2,
        local_addr="127.0.0.1",
    )
    os.environ.setdefault(THREADS, str(max(1, available_cores() // processes)))
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # it is said below
    try:
        elastic_launch(config, sys.executable)("-m", MODULE, *words)
    except ChildFailedError as error:
        return _told(error, processes, onward)
    except SignalException as error:
        name = signal.Signals(error.sigval).name
        raise InterruptedRunError(
            f"the {processes} processes were ended by {name}. {onward()}".rstrip()
        ) from None
    return 0


def _require(processes: int, device: str | None) -> None:
    if processes < 1:
        raise UsageError(f"--nproc {processes}: give 1 or more")
    if choose_device(device).type != "cuda":
        return
    if device is not None and ":" in device:
        raise UsageError(f"--device {device}: with --nproc each process takes a GPU of its own")
    count = torch.cuda.device_count()
    if processes > count:
        raise UsageError(
            f"--nproc {processes}, but there are {count} GPUs here. Give --nproc {count}, or "
            "--device cpu to compute on the CPU"
        )


def _usable(port: int | None) -> int:
    """Return the port, or a free one.

    Raises:
        ResourceError: another program has it.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port or 0))
        except OSError as error:
            raise ResourceError(
                f"port {port} cannot be used ({error.strerror}): another training may run there. "
                "Give another with --master_port, or leave it out to take a free one"
            ) from None
        return int(probe.getsockname()[1])


def _told(error: ChildFailedError, processes: int, onward: Callable[[], str]) -> int:
    """Say last what the process that failed first said, and return its exit status."""
    rank, failure = error.get_first_failure()
    said, code = _message(failure)
    text = f"error: process {rank} of {processes} (counted from 0) {said}"
    if code == ResourceError.exit_code:
        text = f"{text}. {onward()}".rstrip()
    print(text, file=sys.stderr, flush=True)
    return code


def _message(failure: ProcessFailure) -> tuple[str, int]:
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        hint = "; the usual cause is that memory ran out" if name == "SIGKILL" else ""
        return f"was killed by {name}{hint}", ResourceError.exit_code
    try:
        record = json.loads(Path(failure.error_file).read_text(encoding="utf-8"))["message"]
    except (OSError, ValueError, KeyError):
        return f"ended with exit code {failure.exitcode}", failure.exitcode
    if failure.exitcode == BUG:
        return f"met a fault of the program:\n{record['extraInfo']['py_callstack']}", BUG
    return f"failed: {record['message'].partition(': ')[2]}", failure.exitcode


def work_as_launched(args: argparse.Namespace, work: Callable[[Runtime], None]) -> int:
    """Do one process's part of a training and return its exit status.

    A process that fails leaves a record for the launcher, which ends the others.
    """
    handler = get_error_handler()
    handler.initialize()
    _end_with_launcher()
    try:
        with _connected(args) as runtime:
            work(runtime)
    except PeerError as error:
        return _wait_to_be_ended(error)
    except (InterruptedRunError, KeyboardInterrupt):
        if os.environ["RANK"] == "0":
            raise
        return InterruptedRunError.exit_code  # process 0 says it for all
    except Exception as error:
        handler.record_exception(error)
        raise
    return 0


@contextmanager
def _connected(args: argparse.Namespace) -> Iterator[Runtime]:
    """Give the runtime of this process; part from the others if all went well.

    Raises:
        UsageError: there is no such device.
        PeerError: the others did not come.
    """
    rank = int(os.environ["RANK"])
    if rank > 0:
        logs.speak_for_process(rank)
    device = _own_device(args)
    peers = connect(device, args.ddp_timeout)
    precision = choose_precision(device, fp32=args.fp32)
    yield Distributed(device, precision, peers, legacy_dice=args.legacy_ddp_dice)
    peers.leave()


def _own_device(args: argparse.Namespace) -> torch.device:
    """Return this process's device: GPU number `LOCAL_RANK`, or the CPU."""
    device = choose_device(args.device)
    if device.type != "cuda":
        return device
    number = int(os.environ.get("LOCAL_RANK", args.local_rank or 0))
    device = choose_device(f"cuda:{number}")
    torch.cuda.set_device(device)
    return device


def _wait_to_be_ended(error: PeerError) -> int:
    """Say what happened and wait for the launcher, so that it sees who failed first."""
    logger.warning("%s", error)
    with suppress(KeyboardInterrupt):
        time.sleep(END_S)
    sys.stdout.flush()
    os._exit(error.exit_code)  # the connection to a process that is gone cannot be closed


def _end_with_launcher() -> None:
    """End this process when its launcher has ended, however that came about."""
    launcher = os.getppid()

    def watch() -> None:
        """Kill this process as soon as it has another parent."""
        while os.getppid() == launcher:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="launcher", daemon=True).start()


def launch_name() -> str | None:
    """Return what tells this launch from others, its restarts included; None without a launcher."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name not in (None, "none", MODULE):
        return name
    record = os.environ.get("TORCHELASTIC_ERROR_FILE")  # .../LAUNCH/attempt_0/0/error.json
    return Path(record).parents[2].name if record else None


def is_restarted() -> bool:
    """Tell whether the launcher has started the processes again after one had failed."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
