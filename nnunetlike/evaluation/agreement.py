"""How well predicted numbers agree with reference numbers, and how sure a mean over patients is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from nnunetlike.core.typing import JSON, FloatArray

RESAMPLES = 1000
LEVEL = 0.95
SEED = 1234
LIMITS = 1.96
"""Standard deviations from the bias to the limits of agreement, which hold 95 % of differences."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of pairs of numbers, in their unit; NaN where there are too few pairs."""

    n: int
    mae: float
    rmse: float
    r: float
    """Pearson's correlation; NaN if either side is constant."""

    r2: float
    """Share of the reference's variance that the predictions explain; below 0 is worse than its
    mean."""

    bias: float
    """Mean of predicted minus reference."""

    sd: float
    """Standard deviation of the differences of a sample (n - 1)."""

    loa: tuple[float, float]
    """95 % limits of agreement."""

    def to_plain(self) -> JSON:
        """Return the content for JSON."""
        return {**asdict(self), "loa": list(self.loa)}


def agreement(pairs: Sequence[tuple[float, float]]) -> Agreement:
    """Return the agreement of (predicted, reference) pairs, in whatever order they come.

    Source: Bland and Altman, "Statistical methods for assessing agreement between two methods of
    clinical measurement", Lancet 1986.
    """
    predicted, reference = np.array(sorted(pairs), float).reshape(-1, 2).T
    difference = predicted - reference
    n = len(pairs)
    bias = _mean(difference)
    sd = math.sqrt(math.fsum((difference - bias) ** 2) / (n - 1)) if n > 1 else math.nan
    return Agreement(
        n=n,
        mae=_mean(np.abs(difference)),
        rmse=math.sqrt(_mean(difference**2)),
        r=_correlation(predicted, reference),
        r2=_explained(difference, reference),
        bias=bias,
        sd=sd,
        loa=(bias - LIMITS * sd, bias + LIMITS * sd),
    )


def patient_bootstrap(
    values: Mapping[str, Sequence[float]],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = SEED,
) -> tuple[float, float]:
    """Return a confidence interval of the mean over cases, from patients drawn with replacement.

    Cases of one patient are alike, so patients are drawn, each with all its cases.

    Args:
        values: the cases' values by patient; those that are NaN are left out.
        resamples: how often patients are drawn.
        level: share of the resampled means inside the interval.
        seed: of the draws; the patients' order does not matter.

    Returns:
        Both ends; NaN if no value is defined.

    Source: percentile interval of Efron, "Bootstrap methods: another look at the jackknife",
    Annals of Statistics 1979, over clusters.
    """
    defined = {
        patient: [value for value in values[patient] if not math.isnan(value)]
        for patient in sorted(values)
    }
    sums = np.array([math.fsum(found) for found in defined.values() if found])
    counts = np.array([len(found) for found in defined.values() if found])
    if not len(sums):
        return math.nan, math.nan
    drawn = np.random.default_rng(seed).integers(len(sums), size=(resamples, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _mean(values: FloatArray) -> float:
    return math.fsum(values) / len(values) if len(values) else math.nan


def _correlation(predicted: FloatArray, reference: FloatArray) -> float:
    spread = math.sqrt(_spread(predicted)) * math.sqrt(_spread(reference))
    ours, theirs = (values - _mean(values) for values in (predicted, reference))
    return max(-1.0, min(1.0, math.fsum(ours * theirs) / spread)) if spread else math.nan


def _explained(difference: FloatArray, reference: FloatArray) -> float:
    spread = _spread(reference)
    return 1 - math.fsum(difference**2) / spread if spread else math.nan


def _spread(values: FloatArray) -> float:
    """Return the sum of squared distances from the mean, exactly 0 for equal values."""
    if len(set(values.tolist())) < 2:
        return 0.0
    return math.fsum((values - _mean(values)) ** 2)
