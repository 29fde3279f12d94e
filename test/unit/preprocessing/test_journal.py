"""What stands, what is made again, and why."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.data.bricks import save_bricks
from nnunetlike.data.store import SUFFIXES, CaseStore, save_npy, save_npz
from nnunetlike.preprocessing.journal import NEW, Journal, remove_leftovers

CASES = ("a", "b", "c")


def write(store: CaseStore, case: str, seed: int = 0) -> None:
    data = np.random.default_rng(seed).normal(size=(2, 3, 4, 5)).astype(np.float32)
    save_npz(store.folder / f"{case}.npz", {"data": data})
    (store.folder / f"{case}.pkl").write_bytes(b"\x80\x04N.")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Three cases, made and noted."""
    made = Journal(CaseStore(tmp_path / "cropped"), CaseStore(tmp_path / "stage0"), "recipe")
    for case in CASES:
        write(made.source, case)
        write(made.target, case)
        made.add(case)
    return made


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def test_what_was_noted_stands(journal: Journal) -> None:
    assert journal.to_make(CASES) == {}


def test_a_case_that_is_not_there_is_new(journal: Journal) -> None:
    assert journal.to_make(["a", "d"]) == {"d": NEW}


def test_a_copy_of_everything_stands(journal: Journal, tmp_path: Path) -> None:
    for name in ("cropped", "stage0"):
        shutil.copytree(tmp_path / name, tmp_path / "copy" / name, copy_function=shutil.copyfile)
    shutil.copyfile(journal.path, tmp_path / "copy" / journal.path.name)
    copied = Journal(
        CaseStore(tmp_path / "copy" / "cropped"), CaseStore(tmp_path / "copy" / "stage0"), "recipe"
    )
    assert copied.to_make(CASES) == {}


def test_changed_plans_make_all_again(journal: Journal) -> None:
    changed = Journal(journal.source, journal.target, "another recipe")
    assert changed.to_make(CASES) == dict.fromkeys(CASES, "the plans have changed")


def test_a_changed_source_makes_its_case_again(journal: Journal) -> None:
    write(journal.source, "b", seed=1)
    assert journal.to_make(CASES) == {"b": "the cropped case has changed"}


@pytest.mark.parametrize("name", ["b.npz", "b.pkl"])
def test_a_missing_file_makes_its_case_again(journal: Journal, name: str) -> None:
    (journal.target.folder / name).unlink()
    assert journal.to_make(CASES) == {"b": f"{name} is missing"}


def test_a_truncated_array_makes_its_case_again(journal: Journal) -> None:
    truncate(journal.target.folder / "b.npz")
    assert journal.to_make(CASES) == {"b": "b.npz is truncated or damaged"}


def test_truncated_properties_make_their_case_again(journal: Journal) -> None:
    (journal.target.folder / "b.pkl").write_bytes(b"\x80\x04")
    assert journal.to_make(CASES) == {"b": "b.pkl is truncated or damaged"}


def test_files_written_by_others_make_their_case_again(journal: Journal) -> None:
    write(journal.target, "b", seed=1)
    assert journal.to_make(CASES) == {"b": "its files were changed"}


def test_cases_without_a_note_are_made_again(journal: Journal) -> None:
    write(journal.target, "d")
    assert journal.to_make([*CASES, "d"]) == {"d": "it is not known what made it"}


def test_a_note_that_was_cut_off_does_not_count(journal: Journal) -> None:
    truncate(journal.path)
    assert journal.to_make(CASES) == {"c": "it is not known what made it"}
    journal.add("c")
    assert journal.to_make(CASES) == {}


def test_cases_that_are_gone_leave_the_journal(journal: Journal) -> None:
    journal.to_make(["a"])
    assert journal.path.read_text().count("\n") == 1


def test_leftovers_of_killed_processes_are_removed(journal: Journal) -> None:
    folder = journal.target.folder
    for name in (".tmp-12-a.npz", ".tmp-13-a.pkl", ".tmp-1-a.b2nd", ".tmp-12-b-a.npz"):
        (folder / name).touch()
    remove_leftovers(journal.target, ["a"])
    assert [path.name for path in folder.glob(".tmp*")] == [".tmp-12-b-a.npz"]


# forms other than npz


@pytest.fixture(params=["npy", "fp16", "blosc2"])
def other(request: pytest.FixtureRequest, journal: Journal) -> Journal:
    """The three cases made again in another form, and noted."""
    if request.param == "blosc2":
        pytest.importorskip("blosc2")
    target = CaseStore(journal.target.folder, request.param, (4, 4, 4))
    made = Journal(journal.source, target, "recipe")
    for number, case in enumerate(CASES):
        store_in(target, case, number)
        made.add(case)
    return made


def store_in(store: CaseStore, case: str, seed: int = 0) -> None:
    data = np.random.default_rng(seed).normal(size=(2, 30, 40, 50)).astype(np.float32)
    suffix = SUFFIXES[store.form]
    if store.form == "blosc2":
        save_bricks(store.folder / f"{case}{suffix}", data, (4, 4, 4))
    else:
        save_npy(
            store.folder / f"{case}{suffix}", data if store.form == "npy" else data.astype("f2")
        )
    store.remove_arrays(case, keep=store.folder / f"{case}{suffix}")


def test_every_form_stands_also_as_a_copy(other: Journal, tmp_path: Path) -> None:
    assert other.to_make(CASES) == {}
    for path in other.target.folder.iterdir():
        path.write_bytes(path.read_bytes())
    assert other.to_make(CASES) == {}


def test_every_form_is_seen_to_be_truncated_or_changed(other: Journal) -> None:
    first, second = (other.target.array_file(case) for case in "ab")
    assert first is not None and second is not None
    truncate(first)
    content = second.read_bytes()
    middle = len(content) // 2
    second.write_bytes(content[: middle - 2**15] + bytes(2**16) + content[middle + 2**15 :])
    assert other.to_make(CASES) == {
        "a": f"{first.name} is truncated or damaged",
        "b": "its files were changed",
    }


def test_another_form_makes_all_cases_again(other: Journal) -> None:
    asked = Journal(other.source, CaseStore(other.target.folder), "recipe")
    reason = f"it is stored as {other.target.form}, not npz"
    assert asked.to_make(CASES) == dict.fromkeys(CASES, reason)
