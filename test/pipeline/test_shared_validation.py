"""A validation shared by several processes leaves what a single one does, whoever dies."""

from __future__ import annotations

import copy
import logging
import multiprocessing
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nnunetlike.core.errors import DataError, NnunetlikeError, ResourceError
from nnunetlike.core.serialization import load_json
from nnunetlike.core.team import Alone, Team
from nnunetlike.data.store import CaseStore
from nnunetlike.inference import validate as module
from nnunetlike.inference.validate import PROGRESS, validate
from nnunetlike.inference.validation_settings import ValidationSettings
from nnunetlike.plans.plans import Plans

HANG_S = 300
CASES = [f"c_{i}" for i in range(5)]
SETTINGS = ValidationSettings(device=torch.device("cpu"), processes=0, save_npz=True)


class Threads:
    """A team whose members are threads of this process."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier) -> None:
        self.rank, self.world_size, self._barrier = rank, size, barrier
        self.places: list[str] = []

    def meet(self, place: str) -> None:
        self.places.append(place)
        try:
            self._barrier.wait(HANG_S)
        except threading.BrokenBarrierError:
            raise ResourceError("another process failed") from None


class Watched(CaseStore):
    """A store that notes which cases are loaded, and refuses one of them."""

    def __init__(self, folder: Path, loaded: list[str], refused: str = "") -> None:
        super().__init__(folder)
        object.__setattr__(self, "loaded", loaded)
        object.__setattr__(self, "refused", refused)

    def load(self, case_id: str, *, unpacked: bool = True) -> Any:
        if case_id == self.refused:
            raise DataError(f"{case_id}: cannot be read")
        self.loaded.append(case_id)  # type: ignore[attr-defined]
        return super().load(case_id, unpacked=unpacked)


class Validation:
    """Validates five tiny cases with one network, alone or in a team of threads."""

    def __init__(self, home: Path, plans: Plans) -> None:
        self.folder = home / "preprocessed" / "Task901_Tiny"
        self.output = home / "validation"
        self.plans = plans
        torch.manual_seed(0)
        self.network = nn.Conv3d(1, 3, 3, padding=1)
        self.network.classes, self.network.deep_supervision = 3, True  # type: ignore[assignment]
        self.loaded: list[str] = []

    def run(self, team: Team, refused: str = "") -> dict[str, Any]:
        network = copy.deepcopy(self.network)
        store = Watched(self.folder / self.plans.stage_folder(0), self.loaded, refused)
        return validate(
            network, self.plans, 0, store, CASES, self.folder / "gt_segmentations", self.output,
            SETTINGS, task="T", name="n", team=team,
        )  # fmt: skip

    def together(self, size: int, refused: str = "") -> list[dict[str, Any] | NnunetlikeError]:
        """Return what each thread returned or raised; one that raises breaks the others' wait."""
        self.loaded.clear()
        barrier = threading.Barrier(size)

        def member(rank: int) -> dict[str, Any] | NnunetlikeError:
            try:
                return self.run(Threads(rank, size, barrier), refused)
            except NnunetlikeError as error:
                barrier.abort()
                return error

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(member, range(size)))

    def files(self) -> dict[str, Any]:
        """Return the content of all files, summary.json without the time of its making."""
        content: dict[str, Any] = {p.name: p.read_bytes() for p in self.output.iterdir()}
        content["summary.json"] = without_time(load_json(self.output / "summary.json"))
        return content


def without_time(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key not in ("timestamp", "id")}


@pytest.fixture
def validation(tiny_task: Path, tiny_plans: Callable[[int], Plans]) -> Validation:
    return Validation(tiny_task, tiny_plans(3))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_shared_validation_equals_a_single_one_file_for_file(
    validation: Validation, size: int
) -> None:
    alone = validation.run(Alone())
    expected = validation.files()
    summaries = validation.together(size)
    assert validation.files() == expected
    assert [without_time(s) for s in summaries if isinstance(s, dict)] == size * [
        without_time(alone)
    ]


def test_every_case_is_predicted_by_one_process(validation: Validation) -> None:
    validation.together(3)
    assert sorted(validation.loaded) == CASES


def test_nobody_meets_while_cases_are_predicted(validation: Validation) -> None:
    class Counted(Threads):
        def meet(self, place: str) -> None:
            met.append((place, len(validation.loaded)))

    met: list[tuple[str, int]] = []
    barrier = threading.Barrier(1)
    with pytest.raises(DataError):  # the other process's cases are missing
        validation.run(Counted(0, 2, barrier))
    places = [place.rpartition(": ")[2] for place, _ in met]
    assert places == ["begun", "predicted", "whole"]
    assert [loaded for _, loaded in met] == [0, 3, 3]


def test_the_meeting_places_of_two_validations_differ(validation: Validation) -> None:
    team = Threads(0, 1, threading.Barrier(1))
    validation.run(team)
    validation.output = validation.output.with_name("validation_best")
    validation.run(team)
    assert len(set(team.places)) == len(team.places) == 8


def test_the_shares_are_told_once(validation: Validation, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nnunetlike"):
        validation.together(2)
    assert caplog.messages == ["2 processes share 5 validation cases: 3, 2"]


@pytest.mark.parametrize("size", [1, 2])
def test_a_case_that_cannot_be_read_is_told_after_all_others_are_written(
    validation: Validation, size: int
) -> None:
    told = str(validation.together(size, refused="c_1")[-1])
    assert told == "1 of 5 cases failed, the others are done:\n  c_1: cannot be read"
    assert sorted(validation.loaded) == ["c_0", "c_2", "c_3", "c_4"]


def test_failed_exports_are_raised_where_they_were_when_all_others_are_written(
    validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = module.export_settled

    def broken(label: Any, kept: Any, record: Any, settings: Any, destination: Any) -> None:
        if destination.path.name == "c_1.nii.gz":
            raise DataError("its geometry is odd")
        export(label, kept, record, settings, destination)

    monkeypatch.setattr(module, "export_settled", broken)
    first, second = validation.together(2)
    assert str(second) == "1 of 5 cases failed, the others are done:\n  c_1: its geometry is odd"
    assert str(first) == "another process failed"
    written = {path.name for path in validation.output.glob("*.nii.gz")}
    assert written == {f"{case}.nii.gz" for case in CASES if case != "c_1"}
    assert not (validation.output / "summary.json").exists()


@pytest.mark.parametrize("size", [1, 3])
def test_the_next_run_predicts_what_is_missing_on_any_number_of_processes(
    validation: Validation, size: int
) -> None:
    validation.together(2, refused="c_3")
    missing = {case for case in CASES if not (validation.output / f"{case}.nii.gz").exists()}
    assert "c_3" in missing
    validation.together(size)
    assert set(validation.loaded) == missing
    found = validation.files()
    validation.run(Alone())
    assert found == validation.files()


def test_predictions_of_other_weights_are_cleared_before_anyone_predicts(
    validation: Validation,
) -> None:
    validation.together(2, refused="c_3")
    with torch.no_grad():
        validation.network.weight.mul_(-1)
    validation.together(2)
    assert sorted(validation.loaded) == CASES


WORKER = """
import os, signal, sys
from pathlib import Path
import torch
from torch import nn
from nnunetlike.core.errors import NnunetlikeError, ResourceError
from nnunetlike.data.store import CaseStore
from nnunetlike.inference.validate import validate
from nnunetlike.inference.validation_settings import ValidationSettings

class Processes:
    def __init__(self, rank, barrier):
        self.rank, self.world_size, self._barrier = rank, barrier.parties, barrier

    def meet(self, place):
        try:
            self._barrier.wait(300)
        except Exception as error:
            raise ResourceError("another process died") from error

class Deadly(CaseStore):
    def load(self, case_id, *, unpacked=True):
        if case_id == "c_3":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().load(case_id, unpacked=unpacked)

def member(rank, barrier, weights, plans, store, references, output):
    torch.set_num_threads(1)
    network = nn.Conv3d(1, 3, 3, padding=1)
    network.load_state_dict(torch.load(weights))
    network.classes, network.deep_supervision = 3, True
    try:
        validate(
            network, plans, 0, Deadly(store), [f"c_{i}" for i in range(5)], references, output,
            ValidationSettings(device=torch.device("cpu"), processes=0, save_npz=True),
            task="T", name="n", team=Processes(rank, barrier),
        )
    except NnunetlikeError as error:
        (output / f"rank_{rank}.txt").write_text(str(error))
        sys.exit(error.exit_code)
"""


@pytest.mark.slow
@pytest.mark.ddp
def test_a_killed_process_leaves_finished_cases_and_the_next_run_does_the_rest(
    validation: Validation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "module_of_members.py").write_text(WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "module_of_members", None)
    monkeypatch.delitem(sys.modules, "module_of_members")
    import module_of_members  # type: ignore[import-not-found]

    weights = tmp_path / "weights.pt"
    torch.save(validation.network.state_dict(), weights)
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    store = validation.folder / validation.plans.stage_folder(0)
    references = validation.folder / "gt_segmentations"
    members = [
        spawn.Process(
            target=module_of_members.member,
            args=(rank, barrier, weights, validation.plans, store, references, validation.output),
        )
        for rank in range(2)
    ]
    for process in members:
        process.start()
    wait_for(members[1:])
    barrier.abort()  # what a launcher does: the others learn of it where they meet
    wait_for(members[:1])
    assert [process.exitcode for process in members] == [4, -9]
    assert (validation.output / "rank_0.txt").read_text() == "another process died"
    (validation.output / "rank_0.txt").unlink()
    written = {path.name for path in validation.output.glob("*.nii.gz")}
    assert written == {f"{case}.nii.gz" for case in ("c_0", "c_1", "c_2", "c_4")}
    assert (validation.output / PROGRESS).is_file()
    validation.together(3)
    assert validation.loaded == ["c_3"]
    found = validation.files()
    validation.run(Alone())
    assert validation.files() == found


def wait_for(processes: Sequence[Any]) -> None:
    for process in processes:
        process.join(HANG_S)
        assert process.exitcode is not None
