"""Batches from worker processes: their order, their errors, their end."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError, WorkerError
from nnunetlike.training.sources.workers import stream

SOURCE = '''
import os
import signal
from dataclasses import dataclass

import numpy as np

from nnunetlike.core import ring


@dataclass(frozen=True)
class Counting:
    """Batch i is full of i; batch `fails_at` raises, batch `dies_at` kills its process."""

    fails_at: int = -1
    dies_at: int = -1
    error: type = ValueError
    size: int = 4
    once: object = None

    def cases(self, index):
        return [f"case_{index}", f"case_{index}"]

    def batch(self, index):
        if index == self.fails_at:
            raise self.error(f"no batch {index}")
        if index == self.dies_at and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        image = np.full((1, 1, self.size), index, np.float32)
        return {"image": image, "label": image[:, 0] > 0, "case_ids": [str(os.getpid())]}


@dataclass(frozen=True)
class Varied:
    """Batch i has random arrays, nested, of shapes of its own; `dies_at` is killed in between."""

    dies_at: int = -1
    once: object = None

    def cases(self, index):
        return [f"case_{index}"]

    def batch(self, index):
        if index == self.dies_at and not self.once.exists():
            self.once.touch()
            die_when_half_is_written()
        rng = np.random.default_rng(index)
        shape = (2, 1, *rng.integers(1, 60, 3))
        image = rng.normal(size=shape).astype(np.float32)
        targets = [image[:, 0, ::step] > 0 for step in (1, 2, 4)]
        turned = (np.asfortranarray(image[0, 0]), np.array(index, np.int16))
        return {"image": image, "targets": targets, "more": {"turned": turned}, "case_ids": ["a"]}


def die_when_half_is_written():
    written = []
    on = ring.Placed.on

    def one_then_death(place, memory):
        if written:
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(place)
        return on(place, memory)

    ring.Placed.on = one_then_death
'''


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Sources in a module that worker processes can import."""
    (tmp_path / "counting_source.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "counting_source", raising=False)
    return importlib.import_module("counting_source")


@pytest.fixture
def Counting(sources):
    return sources.Counting


def same(a, b):
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return a == b if isinstance(a, str) else all(map(same, a, b)) and len(a) == len(b)


def children():
    return {process.pid for process in multiprocessing.active_children()}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_whatever_the_number_of_workers(Counting, workers, capfd):
    before = children()
    root_handlers = list(logging.getLogger().handlers)
    with stream(Counting(), workers=workers, first=5) as batches:
        taken = list(islice(batches, 9))
    assert [batch["image"][0, 0, 0] for batch in taken] == list(range(5, 14))
    makers = {batch["case_ids"][0] for batch in taken}
    assert len(makers) <= max(workers, 1) and (str(os.getpid()) in makers) == (workers == 0)
    assert children() == before
    assert logging.getLogger().handlers == root_handlers
    assert capfd.readouterr() == ("", "")


def test_a_worker_error_arrives_with_its_traceback_when_its_batch_is_due(Counting, capfd):
    with stream(Counting(fails_at=2), workers=2) as batches:
        assert [next(batches)["image"][0, 0, 0] for _ in range(2)] == [0, 1]
        with pytest.raises(WorkerError, match=r"(?s)batch 2 \(cases case_2\).*Trace.*no batch 2$"):
            next(batches)
    assert capfd.readouterr().err == ""


def test_an_error_the_user_can_mend_keeps_its_kind(Counting):
    with (
        stream(Counting(fails_at=0, error=DataError), workers=1) as batches,
        pytest.raises(DataError, match="batch 0: no batch 0"),
    ):
        next(batches)


@pytest.mark.parametrize("size", [4, 1_000_000])
def test_a_killed_worker_is_an_error_and_not_a_hang(Counting, size, capfd):
    begin = time.monotonic()
    with (
        stream(Counting(dies_at=3, size=size), workers=2) as batches,
        pytest.raises(
            WorkerError,
            match=r"batch 3 \(cases case_3\): tried twice, the second time alone: .* SIGKILL",
        ),
    ):
        list(islice(batches, 20))
    assert time.monotonic() - begin < 30
    assert "Traceback" not in capfd.readouterr().err


def test_a_batch_whose_worker_was_killed_is_made_again(Counting, tmp_path, caplog):
    source = Counting(dies_at=3, size=1_000_000, once=tmp_path / "died")
    with stream(source, workers=2) as batches:
        taken = list(islice(batches, 8))
    assert [batch["image"][0, 0, 0] for batch in taken] == list(range(8))
    assert ["batch 3 (cases case_3)" in message for message in caplog.messages] == [True]


def test_batches_are_made_ahead_but_not_without_end(Counting, tmp_path):
    with stream(Counting(), workers=2) as batches:
        next(batches)
        line = batches.gi_frame.f_locals["self"]
        end = time.monotonic() + 30
        while len(line._ready) < 4:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.1)
        assert len(line._ready) == 4


def test_workers_end_when_the_consumer_raises(Counting):
    before = children()
    batches = iter(())

    def consume():
        nonlocal batches
        with stream(Counting(size=1_000_000), workers=2) as batches:
            next(batches)
            raise KeyError("stop")

    with pytest.raises(KeyError):
        consume()
    assert children() == before
    assert next(batches, None) is None


def test_the_way_processes_are_started_is_left_as_it_was(Counting):
    before = multiprocessing.get_start_method(allow_none=True)
    with stream(Counting(), workers=1) as batches:
        next(batches)
        assert multiprocessing.get_start_method(allow_none=True) == before


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_batches_are_those_made_in_this_process_whatever_their_shapes(sources, method, monkeypatch):
    monkeypatch.setenv("nnUNet_start_method", method)
    with stream(sources.Varied(), workers=2, first=3) as batches:
        taken = list(islice(batches, 12))
    assert all(same(batch, sources.Varied().batch(3 + i)) for i, batch in enumerate(taken))


@pytest.mark.parametrize("memory", [2**30, 2**23, 0])
def test_batches_that_are_held_do_not_change_while_workers_go_on(sources, memory, caplog):
    caplog.set_level(logging.INFO)
    held = {}
    with stream(sources.Varied(), workers=2, memory=memory) as batches:
        for index, batch in enumerate(islice(batches, 40)):
            held[index] = batch
            held.pop(index - 1 - index % 7, None)  # some are held for long, most shortly
            if index % 8 == 0:
                assert all(same(b, sources.Varied().batch(i)) for i, b in held.items())
    assert all(same(batch, sources.Varied().batch(i)) for i, batch in held.items())
    assert bool(caplog.messages) == (memory < 2**30)


def test_memory_is_used_again_when_its_batch_was_let_go(Counting):
    with stream(Counting(size=1000), workers=1) as batches:
        seen = {next(batches)["image"].ctypes.data for _ in range(30)}
    assert len(seen) <= 4


def test_a_batch_whose_worker_was_killed_while_writing_it_is_made_again(sources, tmp_path, caplog):
    source = sources.Varied(dies_at=3, once=tmp_path / "died")
    with stream(source, workers=2) as batches:
        taken = list(islice(batches, 12))
    assert all(same(batch, sources.Varied().batch(i)) for i, batch in enumerate(taken))
    assert ["batch 3 (cases case_3)" in message for message in caplog.messages] == [True]
    assert "SIGKILL" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_nothing_in_dev_shm_can_outlive_a_killed_training(sources, tmp_path):
    script = tmp_path / "owner.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from pathlib import Path\n"
        "from counting_source import Counting\n"
        "from nnunetlike.training.sources.workers import stream\n"
        "if __name__ == '__main__':\n"
        "    with stream(Counting(size=1_000_000), workers=2) as batches:\n"
        "        held = [next(batches) for _ in range(3)]\n"
        "        pids = [str(p.pid) for p in multiprocessing.active_children()]\n"
        "        print(*pids, flush=True)\n"
        "        time.sleep(600)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    owner = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        workers = [int(pid) for pid in owner.stdout.readline().split()]
        assert len(workers) == 2
        for pid in (owner.pid, *workers):
            maps = Path(f"/proc/{pid}/maps").read_text()
            assert "/memfd:nnunetlike (deleted)" in maps
            assert "/dev/shm" not in maps.replace("/dev/shm/__KMP_REGISTERED", "")  # of OpenMP
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate(timeout=120)
    end = time.monotonic() + 60
    while any(is_alive(pid) for pid in workers):
        assert time.monotonic() < end, "a worker outlived its owner"
        time.sleep(0.05)


def is_alive(pid):
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
