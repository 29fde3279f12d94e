"""Which videos train and which validate: by patient, or as the data set's own lists say."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.data.splits import SEED, Split, make_splits, split_for
from nnunetlike.data.video import VideoFacts

TERTILES = (1 / 3, 2 / 3)
LISTS = ("train", "val", "test")
SHOWN = 10


def make_video_splits(facts: Mapping[str, VideoFacts], folds: int = 5) -> list[Split]:
    """Return a cross-validation in which a patient's videos lie on one side of each fold.

    Where all patients have an ejection fraction or a quality, each fold validates on about equally
    many of each tertile and quality: patients are shuffled once, put in order of these, and dealt
    out. Else the folds are those of `make_splits` with the patients as groups. Videos that the data
    set's own lists keep for the test are in no fold.

    Args:
        facts: of all training cases.
        folds: number of folds; fewer patients than that each validate alone.

    Raises:
        DataError: there are fewer than two patients.
    """
    facts = {case: video for case, video in sorted(facts.items()) if video.split != "test"}
    patient = {case: video.patient for case, video in facts.items()}
    strata = _strata(facts)
    if strata is None or len(strata) < 2:
        return make_splits(facts, folds, patient)
    names = sorted(strata)
    order = np.random.RandomState(SEED).permutation(len(names))
    dealt = sorted((names[i] for i in order), key=strata.__getitem__)  # stable: shuffled within
    count = min(folds, len(names))
    fold_of = {name: position % count for position, name in enumerate(dealt)}
    return [
        Split(
            train=tuple(case for case in facts if fold_of[patient[case]] != fold),
            val=tuple(case for case in facts if fold_of[patient[case]] == fold),
        )
        for fold in range(count)
    ]


def _strata(facts: Mapping[str, VideoFacts]) -> dict[str, tuple[int, str]] | None:
    """Return tertile of the ejection fraction and quality of each patient, or None if unknown.

    What is not known of all patients is left out.
    """
    fractions: defaultdict[str, list[float]] = defaultdict(list)
    qualities: defaultdict[str, set[str]] = defaultdict(set)
    for video in facts.values():
        if video.ef is not None:
            fractions[video.patient].append(video.ef)
        if video.quality is not None:
            qualities[video.patient].add(video.quality)
    patients = {video.patient for video in facts.values()}
    tertile, quality = dict.fromkeys(patients, 0), dict.fromkeys(patients, "")
    if fractions.keys() == patients and patients:
        means = {name: float(np.mean(values)) for name, values in fractions.items()}
        limits = np.quantile(list(means.values()), TERTILES)
        tertile = {name: int(np.searchsorted(limits, mean)) for name, mean in means.items()}
    if qualities.keys() == patients:
        quality = {name: " ".join(sorted(found)) for name, found in qualities.items()}
    if fractions.keys() != patients and qualities.keys() != patients:
        return None
    return {name: (tertile[name], quality[name]) for name in patients}


def video_split_for(
    fold: int | str, splits: Sequence[Split], facts: Mapping[str, VideoFacts]
) -> Split:
    """Return the split of a numbered fold, as `split_for`; one beyond the last draws patients.

    Args:
        fold: number.
        splits: those that were made.
        facts: of all training cases.
    """
    if int(fold) < len(splits):
        return splits[int(fold)]
    drawn = split_for(fold, splits, {video.patient for video in facts.values()})
    training = set(drawn.train)
    return Split(
        train=tuple(case for case in sorted(facts) if facts[case].patient in training),
        val=tuple(case for case in sorted(facts) if facts[case].patient not in training),
    )


def official_split(facts: Mapping[str, VideoFacts]) -> Split:
    """Return the data set's own lists: `train` trains, `val` validates, `test` does neither.

    Args:
        facts: of all training cases; none of a task that has no videos.

    Raises:
        UsageError: the task has no videos.
        DataError: cases are in no list, a list is empty, or a patient is in two of them.
    """
    if not facts:
        raise UsageError(
            "the fold 'official' exists for videos only. Train a numbered fold or 'all'"
        )
    lists: defaultdict[str | None, list[str]] = defaultdict(list)
    for case, video in sorted(facts.items()):
        lists[video.split].append(case)
    strange = sorted(case for name, cases in lists.items() if name not in LISTS for case in cases)
    if strange:
        raise DataError(
            f"the fold 'official' needs the data set's own lists, but {len(strange)} of "
            f"{len(facts)} cases have none of {', '.join(LISTS)} as 'split' in their facts: "
            f"{_listed(strange)}. Train a numbered fold, or add 'split' to casesTr/ID.json and "
            "plan again"
        )
    for name in ("train", "val"):
        if not lists[name]:
            raise DataError(
                f"the fold 'official' has nothing to {'train' if name == 'train' else 'validate'} "
                f"on: no case has {name!r} as 'split' in its facts (casesTr/ID.json)"
            )
    require_whole_patients([lists[name] for name in LISTS], facts, "the data set's own lists")
    return Split(train=tuple(lists["train"]), val=tuple(lists["val"]))


def require_whole_patients(
    sides: Sequence[Sequence[str]], facts: Mapping[str, VideoFacts], what: str
) -> None:
    """Do nothing if no patient has videos on two sides.

    Args:
        sides: case identifiers; those without facts are passed over.
        facts: of all cases.
        what: says where the sides come from.

    Raises:
        DataError: some have; they are named with their videos.
    """
    found: defaultdict[str, dict[int, list[str]]] = defaultdict(dict)
    for number, side in enumerate(sides):
        for case in side:
            if case in facts:
                found[facts[case].patient].setdefault(number, []).append(case)
    torn = {patient: at for patient, at in found.items() if len(at) > 1}
    if torn:
        named = [
            f"{patient} ({' | '.join(', '.join(cases) for _, cases in sorted(at.items()))})"
            for patient, at in sorted(torn.items())
        ]
        raise DataError(
            f"{what}: {len(torn)} patient{'s have' if len(torn) > 1 else ' has'} videos on two "
            f"sides, so that the Dice would be too good: {_listed(named)}. Put all videos of a "
            "patient on one side"
        )


def _listed(words: Sequence[str]) -> str:
    more = len(words) - SHOWN
    return ", ".join(words[:SHOWN]) + (f" and {more} more" if more > 0 else "")
