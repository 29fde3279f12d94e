"""Folds of videos: patients whole, like mixed, and the data set's own lists."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.data.splits import make_splits
from nnunetlike.data.video import VideoFacts
from nnunetlike.data.video_splits import (
    make_video_splits,
    official_split,
    require_whole_patients,
    video_split_for,
)


def both_views(patients: int, seed: int | None = None, **known: object) -> dict[str, VideoFacts]:
    """Two videos of each patient; with a seed their identifiers and fractions are random."""
    rng = np.random.default_rng(seed)
    numbers = range(patients) if seed is None else rng.choice(9000, patients, replace=False)
    return {
        f"patient{n:04d}_{view}": VideoFacts(
            patient=f"patient{n:04d}",
            labelled_frames=(0, 1),
            view=view,
            **({} if seed is None else {"ef": 20 + n % 50, "quality": "PMG"[n % 3]}),  # type: ignore[arg-type]
            **known,  # type: ignore[arg-type]
        )
        for n in map(int, numbers)
        for view in ("2CH", "4CH")
    }


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_no_patient_is_in_two_folds_and_views_stay_together(seed: int | None) -> None:
    facts = both_views(47, seed)
    splits = make_video_splits(facts)
    assert len(splits) == 5
    assert sorted(case for split in splits for case in split.val) == sorted(facts)
    for split in splits:
        sides = [{facts[case].patient for case in side} for side in (split.train, split.val)]
        assert not sides[0] & sides[1]
        assert len(split.val) == 2 * len(sides[1]) and len(sides[1]) in (9, 10)


def test_without_fractions_folds_are_those_of_groups() -> None:
    facts = both_views(12)
    groups = {case: video.patient for case, video in facts.items()}
    assert make_video_splits(facts) == make_splits(facts, 5, groups)


def test_fractions_and_qualities_are_spread_over_the_folds() -> None:
    facts = both_views(90, seed=4)
    limits = np.quantile([video.ef or 0 for video in facts.values()], [1 / 3, 2 / 3])
    for split in make_video_splits(facts):
        tertiles = Counter(int(np.searchsorted(limits, facts[case].ef or 0)) for case in split.val)
        qualities = Counter(facts[case].quality for case in split.val)
        assert max(tertiles.values()) - min(tertiles.values()) <= 8  # of 36 videos
        assert len(qualities) == 3


def test_a_fold_beyond_the_last_draws_patients_not_videos() -> None:
    facts = both_views(10)
    split = video_split_for(7, make_video_splits(facts), facts)
    training = {facts[case].patient for case in split.train}
    assert len(training) == 8 and len(split.train) == 16 and len(split.val) == 4
    assert video_split_for(1, make_video_splits(facts), facts) == make_video_splits(facts)[1]


def test_what_is_not_known_of_all_patients_does_not_decide() -> None:
    facts = both_views(12)
    first = min(facts)
    facts[first] = VideoFacts(patient="patient0000", labelled_frames=(0,), ef=50, quality="Good")
    groups = {case: video.patient for case, video in facts.items()}
    assert make_video_splits(facts) == make_splits(facts, 5, groups)


def test_folds_do_not_depend_on_the_order_of_the_cases() -> None:
    facts = both_views(20, seed=1)
    assert make_video_splits(dict(reversed(facts.items()))) == make_video_splits(facts)


def test_videos_kept_for_the_test_are_in_no_fold() -> None:
    facts = both_views(6) | {
        "t": VideoFacts(patient="test", labelled_frames=(0,), split="test"),
    }
    assert all("t" not in (*split.train, *split.val) for split in make_video_splits(facts))


def test_few_patients_make_fewer_folds_and_one_makes_none() -> None:
    assert len(make_video_splits(both_views(3, seed=1))) == 3
    with pytest.raises(DataError, match="two groups"):
        make_video_splits(both_views(1))


def lists_of_camus() -> dict[str, VideoFacts]:
    """400, 50 and 50 patients with two views each."""
    sizes = {"train": 400, "val": 50, "test": 50}
    names = [split for split, size in sizes.items() for _ in range(size)]
    return {
        f"patient{n:04d}_{view}": VideoFacts(
            patient=f"patient{n:04d}", labelled_frames=(0, 1), split=split
        )
        for n, split in enumerate(names)
        for view in ("2CH", "4CH")
    }


def test_the_official_fold_is_the_data_sets_own_lists() -> None:
    split = official_split(lists_of_camus())
    assert len(split.train) == 800 and len(split.val) == 100
    assert split.train[0] == "patient0000_2CH" and split.val[-1] == "patient0449_4CH"


def test_lists_that_share_a_patient_are_refused_by_name() -> None:
    facts = lists_of_camus()
    facts["patient0007_4CH"] = VideoFacts(patient="patient0007", labelled_frames=(0,), split="val")
    with pytest.raises(DataError, match=r"1 patient has .*patient0007 \(patient0007_2CH \| "):
        official_split(facts)


def test_the_official_fold_needs_a_list_for_every_video() -> None:
    facts = lists_of_camus() | both_views(1)
    with pytest.raises(DataError, match=r"2 of 1000 cases have none .* patient0000_2CH, pat"):
        official_split(facts)
    only = {case: video for case, video in lists_of_camus().items() if video.split == "train"}
    with pytest.raises(DataError, match="nothing to validate on"):
        official_split(only)
    with pytest.raises(UsageError, match="for videos only"):
        official_split({})


def test_a_patient_on_both_sides_is_refused_with_its_videos() -> None:
    facts = both_views(3)
    with pytest.raises(DataError, match=r"fold 0: 1 patient has .*patient0001"):
        require_whole_patients(
            (["patient0000_2CH", "patient0001_2CH"], ["patient0001_4CH"]), facts, "fold 0"
        )
