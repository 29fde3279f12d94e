"""Cases on a Dask cluster: results, failures told as local ones are, nothing lost, never a hang."""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from nnunetlike.core import dask_cluster as module
from nnunetlike.core.dask_cluster import DaskCluster, dask_cluster
from nnunetlike.core.errors import (
    DataError,
    ResourceError,
    UsageError,
    WorkerBugError,
    WorkerError,
)
from nnunetlike.core.parallel import process_map

HANG_S = 300
Start = Callable[..., tuple[str, subprocess.Popen[str]]]
FUNCTIONS = """
import errno, logging, os, signal, time
from nnunetlike.core.errors import DataError

def double(value):
    return 2 * value

def refuse_odd(value):
    if value % 2:
        raise DataError("it is odd")
    return value

def die_at_two(value):
    if value == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return value

def die_once(path):
    with path.open("a") as stream:
        stream.write("begun ")
    if path.name == "two" and path.read_text() == "begun ":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.2)
    with path.open("a") as stream:
        stream.write("done ")
    return path.name

def memory_runs_out_once(path):
    if path.exists():
        return "done"
    path.touch()
    raise MemoryError("Unable to allocate 5 GiB")

def bug(value):
    raise RuntimeError("a fault of ours")

def fill_the_disk(path):
    if path.name == "0":
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/case.npz")
    return slow(path)

def slow(path):
    path.touch()
    time.sleep(0.5)

def log(value):
    logging.getLogger("nnunetlike.some.module").info("case %d is odd", value)
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    folder = tmp_path_factory.mktemp("functions")
    (folder / "functions_on_dask.py").write_text(FUNCTIONS)
    sys.path.insert(0, str(folder))
    yield importlib.import_module("functions_on_dask")
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def address(start_dask: Start, functions: ModuleType) -> str:
    return start_dask(path=Path(str(functions.__file__)).parent)[0]


@pytest.fixture
def cluster(address: str) -> Iterator[DaskCluster]:
    with dask_cluster(address) as cluster:
        yield cluster


pytestmark = pytest.mark.slow


def test_results_come_in_the_order_of_the_items(
    cluster: DaskCluster, functions: ModuleType
) -> None:
    found = process_map(functions.double, range(7), processes=cluster)
    assert found == [0, 2, 4, 6, 8, 10, 12]


def test_wrong_data_are_told_as_local_workers_tell_them(
    cluster: DaskCluster, functions: ModuleType
) -> None:
    with pytest.raises(DataError) as caught:
        process_map(functions.refuse_odd, range(5), processes=cluster, name="case_{}".format)
    assert str(caught.value) == (
        "2 of 5 cases failed, the others are done:\n  case_1: it is odd\n  case_3: it is odd"
    )


def test_the_case_of_a_killed_worker_is_done_by_another_and_nothing_is_lost(
    cluster: DaskCluster, functions: ModuleType, tmp_path: Path
) -> None:
    items = [tmp_path / name for name in ("one", "two", "three", "four", "five", "six")]
    found = process_map(functions.die_once, items, processes=cluster)
    assert found == [path.name for path in items]
    assert (tmp_path / "two").read_text() == "begun begun done "
    assert all(path.read_text().endswith("done ") for path in items)


def test_a_case_that_kills_its_workers_is_given_up_and_the_others_are_done(
    cluster: DaskCluster, functions: ModuleType
) -> None:
    with pytest.raises(
        WorkerError, match=r"(?s)1 of 4 cases.*case_2: 2 Dask workers died of it, the last at tcp:"
        r".*The usual cause is that memory ran out: give workers more of it \(--memory-limit\)",
    ) as caught:  # fmt: skip
        process_map(functions.die_at_two, range(4), processes=cluster, name="case_{}".format)
    assert caught.value.exit_code == 4


class BlamingFutures:
    """Calls that end in turn; those in hand together with the deadly one are given up with it."""

    def __init__(self, _: object) -> None:
        self.in_hand: list[tuple[int, int]] = []
        self.has_died = False
        self.alone: list[int] = []

    def __enter__(self) -> BlamingFutures:
        return self

    def __exit__(self, *_: object) -> None:
        assert not self.in_hand

    @property
    def waiting(self) -> bool:
        return bool(self.in_hand)

    def submit(self, index: int, call: object, item: int) -> None:
        if self.has_died:
            assert not self.in_hand
            self.alone.append(index)
        self.in_hand.append((index, item))

    def next(self) -> tuple[int, module._Answer]:
        index, item = self.in_hand.pop(0)
        deadly = item == 2
        self.has_died = self.has_died or deadly
        if deadly or (item == 3 and index not in self.alone):
            return index, module._Answer(WorkerError("2 Dask workers died of it"), killed=True)
        return index, module._Answer(10 * item)


def test_a_case_that_shared_workers_with_a_deadly_one_is_tried_again_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_Futures", BlamingFutures)
    cluster = DaskCluster(client=None, address="tcp://localhost:8786")
    outcomes = dict(cluster.outcomes(str, [1, 2, 3, 4], list("abcd"), None, ""))
    died = outcomes.pop(1)
    assert isinstance(died, WorkerError)
    assert outcomes == {0: 10, 2: 30, 3: 40}


def test_a_case_whose_memory_ran_out_is_tried_once_more(
    cluster: DaskCluster, functions: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [tmp_path / "case_1"]
    name: Callable[[Path], str] = lambda path: path.name  # noqa: E731
    assert process_map(functions.memory_runs_out_once, items, processes=cluster, name=name) == [
        "done"
    ]
    assert any(
        text.startswith("case_1: memory ran out (Unable to allocate 5 GiB)")
        and text.endswith("It is tried once more")
        for text in caplog.messages
    )


def test_a_fault_of_the_program_ends_with_its_traceback(
    cluster: DaskCluster, functions: ModuleType
) -> None:
    with pytest.raises(WorkerBugError) as caught:
        process_map(functions.bug, [1], processes=cluster)
    assert str(caught.value).endswith("RuntimeError: a fault of ours")
    assert "functions_on_dask.py" in str(caught.value)


def test_a_full_disk_ends_the_work_at_once(
    cluster: DaskCluster, functions: ModuleType, tmp_path: Path
) -> None:
    items = [tmp_path / str(i) for i in range(100)]
    with pytest.raises(ResourceError, match=r"^0: the disk is full: /somewhere/case\.npz"):
        process_map(functions.fill_the_disk, items, processes=cluster, name=lambda path: path.name)
    assert_nothing_begins_any_more(tmp_path, len(items))


def test_an_interruption_cancels_what_has_not_begun(
    cluster: DaskCluster, functions: ModuleType, tmp_path: Path
) -> None:
    items = [tmp_path / str(i) for i in range(100)]
    found = cluster.outcomes(functions.slow, items, list(map(str, items)), None, "")
    next(found)
    found.close()  # what an interruption of the loop over it does
    assert_nothing_begins_any_more(tmp_path, len(items))


def assert_nothing_begins_any_more(folder: Path, items: int) -> None:
    time.sleep(2)
    begun = len(list(folder.iterdir()))
    time.sleep(2)
    assert len(list(folder.iterdir())) == begun < items


def test_what_calls_log_is_logged_here(
    cluster: DaskCluster, functions: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "nnunetlike"):
        process_map(functions.log, [3], processes=cluster)
    assert ("nnunetlike.some.module", logging.INFO, "case 3 is odd") in caplog.record_tuples


def test_a_cluster_that_lacks_a_module_is_told(cluster: DaskCluster, tmp_path: Path) -> None:
    (tmp_path / "only_here.py").write_text("def call(value):\n    return value\n")
    sys.path.insert(0, str(tmp_path))
    try:
        call = importlib.import_module("only_here").call
        with pytest.raises(UsageError, match="install the same versions of nnunetlike and of Dask"):
            process_map(call, [1], processes=cluster)
    finally:
        sys.path.remove(str(tmp_path))


def test_a_cluster_without_workers_is_waited_for_and_told(
    start_dask: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Impatient(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.WARNING:
                said.append(record.getMessage())
                raise KeyboardInterrupt

    said: list[str] = []
    monkeypatch.setattr(module, "LOOK_S", 0.1)
    handler = Impatient()
    module.logger.addHandler(handler)
    address, _ = start_dask(workers=0)
    try:
        with dask_cluster(address) as cluster, pytest.raises(KeyboardInterrupt):
            process_map(str, [1], processes=cluster)
    finally:
        module.logger.removeHandler(handler)
    assert said[0].startswith(f"the Dask cluster at {address} has no workers; waiting for one.")


def test_a_scheduler_that_dies_ends_the_work(
    start_dask: Start, functions: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import dask

    address, process = start_dask(path=Path(str(functions.__file__)).parent)
    items = [tmp_path / str(i) for i in range(50)]

    def kill_when_begun() -> None:
        while not list(tmp_path.iterdir()):
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_begun, daemon=True)
    killer.start()
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        pytest.raises(ResourceError, match=r"the Dask scheduler at .* is gone\. Start it, or"),
        dask_cluster(address) as cluster,
    ):
        process_map(functions.slow, items, processes=cluster)
    killer.join(HANG_S)
    assert not [name for name, _, _ in caplog.record_tuples if name == "distributed.client"]


def test_an_address_where_nobody_answers_is_told_in_time() -> None:
    pytest.importorskip("distributed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but it does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(ResourceError) as caught, dask_cluster(address, timeout_s=1):
            pass
    assert time.monotonic() - begin < 60
    assert caught.value.exit_code == 4
    assert str(caught.value).startswith(f"no Dask scheduler answered at {address} within 1 s. ")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_server_that_is_no_scheduler_is_told() -> None:
    pytest.importorskip("distributed")

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ResourceError, match="no Dask scheduler"):
            dask_cluster(address, timeout_s=2).__enter__()
        gc.collect()  # Dask's half-made client may complain of its own end


@pytest.mark.parametrize("address", ["nonsense", "http://localhost:8786"])
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    pytest.importorskip("distributed")
    with (
        pytest.raises(UsageError, match=f"'{address}' is not the address of a Dask scheduler"),
        dask_cluster(address),
    ):
        pass


def test_without_dask_it_is_told_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with (
        pytest.raises(UsageError, match=r"pip install 'nnunetlike\[dask\]'"),
        dask_cluster("localhost:8786"),
    ):
        pass
