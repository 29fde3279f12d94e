from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from nnunetlike.core.errors import DataError, WorkerError
from nnunetlike.core.parallel import available_cores, default_processes, process_map

# Worker processes import functions by name, and a test module has none they could find.
FUNCTIONS = """
import os, signal
from nnunetlike.core.errors import DataError

def double(value):
    return 2 * value

def refuse_two(value):
    if value == 2:
        raise DataError("it is two")
    return value

def die_at_two(value):
    if value == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return value
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (tmp_path / "functions_of_workers.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module("functions_of_workers")


@pytest.mark.parametrize("processes", [0, 1, 2])
def test_results_come_in_the_order_of_the_items(functions: ModuleType, processes: int) -> None:
    found = process_map(functions.double, range(7), processes=processes)
    assert found == [0, 2, 4, 6, 8, 10, 12]


@pytest.mark.parametrize("processes", [0, 2])
def test_an_error_names_the_case(functions: ModuleType, processes: int) -> None:
    with pytest.raises(DataError, match="case_2: it is two"):
        process_map(functions.refuse_two, range(4), processes=processes, name="case_{}".format)


def test_a_killed_worker_ends_the_work_and_its_case_is_named(functions: ModuleType) -> None:
    with pytest.raises(WorkerError, match="case_2"):
        process_map(functions.die_at_two, range(4), processes=2, name="case_{}".format)


def test_no_more_processes_than_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_def_n_proc", "1000")
    assert default_processes() == available_cores()
    monkeypatch.setenv("nnUNet_def_n_proc", "1")
    assert default_processes() == 1
