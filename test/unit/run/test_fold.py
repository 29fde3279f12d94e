"""What a run comes to."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.data.splits import Split
from nnunetlike.data.store import CaseStore
from nnunetlike.run.fold import Fold, _require_cases, _split
from nnunetlike.training.batch_share import BatchShare


def _fold(configuration: str, stages: int, fold: int | str = 0) -> Fold:
    run: Any = SimpleNamespace(configuration=configuration, fold=fold)
    plans: Any = SimpleNamespace(stages=dict.fromkeys(range(stages)))
    return Fold(
        run=run,
        plans=plans,
        plans_file=Path(),
        stage_number=0,
        split=Split((), ()),
        store=CaseStore(Path()),
        dataset=Path("d"),
        model_folder=Path("m"),
        share=BatchShare(samples=2, total=2, oversample=0.33),
    )


@pytest.mark.parametrize(
    ("configuration", "stages", "batch_dice"),
    [
        ("2d", 1, True),
        ("3d_fullres", 1, False),
        ("3d_fullres", 2, True),
        ("3d_lowres", 2, False),
    ],
)
def test_dice_is_summed_over_the_batch_in_2d_and_at_the_full_of_two_resolutions(
    configuration: str, stages: int, batch_dice: bool
) -> None:
    assert _fold(configuration, stages).batch_dice is batch_dice


def test_fold_all_has_a_folder_of_that_name() -> None:
    assert _fold("2d", 1, "all").folder == Path("m/all")
    assert _fold("2d", 1, 3).folder == Path("m/fold_3")


def test_all_missing_cases_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks 3 case\(s\) of the split: a, b, c\. It holds 0"):
        _require_cases(CaseStore(tmp_path), Split(("a", "b"), ("c",)))


def test_unknown_cases_of_a_split_are_named_beside_those_there_are(tmp_path: Path) -> None:
    store = CaseStore(tmp_path)
    for name in "abcde":
        (tmp_path / f"{name}.npz").touch()
        (tmp_path / f"{name}.pkl").touch()
    with pytest.raises(DataError, match=r"split: x_1, x_2\. It holds 5: a, b, c, …\..*correct spl"):
        _require_cases(store, Split(("a", "x_2"), ("x_1",)))


def test_splits_are_made_when_they_are_missing_and_that_is_said(tmp_path: Path) -> None:
    store = CaseStore(tmp_path / "data")
    store.folder.mkdir()
    for name in "abcdefg":
        (store.folder / f"{name}.npz").touch()
        (store.folder / f"{name}.pkl").touch()
    split, notes = _split(0, tmp_path, store, {})
    assert sorted((*split.train, *split.val)) == list("abcdefg")
    assert "5-fold" in notes[0]
    again, no_notes = _split(0, tmp_path, store, {})
    assert again == split
    assert no_notes == ()
