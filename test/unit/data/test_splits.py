from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.serialization import save_pickle_with_twin
from nnunetlike.data.splits import (
    Split,
    groups_of,
    load_splits,
    make_splits,
    save_splits,
    split_for,
)

# The validation cases of fold 0 that the public UNet++ port publishes for Task003_Liver.
LIVER_FOLD_0 = [
    3, 5, 11, 12, 17, 19, 24, 25, 27, 38, 40, 41, 42, 44, 51, 52, 58, 64, 70, 75, 77, 82, 101, 112,
    115, 120, 128,
]  # fmt: skip


def test_fold_0_of_liver_is_the_published_one() -> None:
    splits = make_splits(f"liver_{i}" for i in range(131))
    assert set(splits[0].val) == {f"liver_{i}" for i in LIVER_FOLD_0}


@settings(max_examples=30, deadline=None)
@given(count=st.integers(2, 60), folds=st.integers(2, 5))
def test_every_case_is_validated_once_and_never_trained_on_then(count: int, folds: int) -> None:
    ids = [f"c{i}" for i in range(count)]
    splits = make_splits(ids, folds)
    assert sorted(case for s in splits for case in s.val) == sorted(ids)
    assert all(set(s.train) | set(s.val) == set(ids) for s in splits)
    assert not any(set(s.train) & set(s.val) for s in splits)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_fewer_than_five_cases_leave_one_out(count: int) -> None:
    splits = make_splits("abcd"[:count])
    assert len(splits) == count
    assert {split.val for split in splits} == {(case,) for case in "abcd"[:count]}
    assert all(len(split.train) == count - 1 for split in splits)


@settings(max_examples=30, deadline=None)
@given(groups=st.lists(st.integers(0, 9), min_size=2, max_size=40), folds=st.integers(2, 7))
def test_no_group_is_on_both_sides_of_a_fold(groups: list[int], folds: int) -> None:
    group = {f"c{i}": str(number) for i, number in enumerate(groups)}
    if len(set(groups)) < 2:
        with pytest.raises(DataError, match="two groups"):
            make_splits(group, folds, group)
        return
    splits = make_splits(group, folds, group)
    assert len(splits) == min(folds, len(set(groups)))
    assert sorted(case for s in splits for case in s.val) == sorted(group)
    for split in splits:
        assert not {group[c] for c in split.train} & {group[c] for c in split.val}


def test_cases_that_are_groups_of_their_own_are_split_as_without_groups() -> None:
    ids = [f"c{i}" for i in range(17)]
    assert make_splits(ids, 5, {case: case for case in ids}) == make_splits(ids)


@pytest.mark.parametrize("rule", ["^p[0-9]+", "^p([0-9]+)_", "groups.csv"])
def test_groups_come_from_an_expression_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("groups.csv").write_text("case,patient\np1_a, p1\np1_b,p1\np22_a,p22\nother,p9\n")
    found = groups_of(["p1_a", "p1_b", "p22_a"], rule)
    assert found["p1_a"] == found["p1_b"] != found["p22_a"]
    assert set(found) == {"p1_a", "p1_b", "p22_a"}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("^p", "gives no group to 1 of 2 cases: q_b"),
        ("(", "is no regular expression"),
        ("nowhere.csv", "one line ID,GROUP per case"),
    ],
)
def test_cases_without_group_are_named(rule: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        groups_of(["p_a", "q_b"], rule)


def test_one_case_cannot_be_split_and_the_way_out_is_named() -> None:
    with pytest.raises(DataError, match=r"only a.*fold 'all'"):
        make_splits(["a"])


def test_fold_all_trains_and_validates_on_everything() -> None:
    split = split_for("all", [], ["b", "a"])
    assert split.train == split.val == ("a", "b")


def test_splits_survive_a_file(tmp_path: Path) -> None:
    splits = make_splits("abcdef")
    save_splits(splits, tmp_path / "splits_final.pkl")
    assert load_splits(tmp_path / "splits_final.pkl") == splits
    assert (tmp_path / "splits_final.json").is_file()


def test_cases_that_train_and_validate_are_refused_by_fold_and_name(tmp_path: Path) -> None:
    path = tmp_path / "splits_final.pkl"
    sound, leaking = Split(("a", "b"), ("c",)), Split(("a", "b", "c"), ("c", "b"))
    save_splits([sound, leaking], path)
    with pytest.raises(DataError, match=r"splits_final.pkl .*: fold 1: b, c. Take each out"):
        load_splits(path)


@pytest.mark.parametrize("content", [{"train": ["a"]}, [{"train": ["a"]}], [["a"], ["b"]], 3])
def test_a_file_that_holds_no_splits_is_refused_with_the_form_it_needs(
    tmp_path: Path, content: Any
) -> None:
    save_pickle_with_twin(content, tmp_path / "splits_final.pkl")
    with pytest.raises(DataError, match=r"a list of {'train': \[ID, …\], 'val': \[ID, …\]}"):
        load_splits(tmp_path / "splits_final.pkl")


def test_splits_equal_v1(golden: Path) -> None:
    for name, expected in json.loads((golden / "planning/splits.json").read_text()).items():
        ids = expected["identifiers_given"]
        splits = make_splits(ids)
        wanted = dict(enumerate(expected["folds"]))
        wanted |= {5: expected["fold5_random"], 7: expected["fold7_random"]}
        for fold, parts in wanted.items():
            split = split_for(fold, splits, ids)
            assert list(split.train) == parts["train"], (name, fold)
            assert list(split.val) == parts["val"], (name, fold)
