"""Batches from worker processes: their order, their errors, their end."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import sys
import time
from itertools import islice

import pytest

from nnunetlike.core.errors import DataError, WorkerError
from nnunetlike.training.sources.workers import stream

SOURCE = '''
import os
import signal
from dataclasses import dataclass

import numpy as np


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
'''


@pytest.fixture
def Counting(tmp_path, monkeypatch):
    """A source in a module that worker processes can import."""
    (tmp_path / "counting_source.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "counting_source", raising=False)
    return importlib.import_module("counting_source").Counting


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
