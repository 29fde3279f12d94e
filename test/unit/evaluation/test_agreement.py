from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetlike.evaluation.agreement import agreement, patient_bootstrap


def test_25_two_points_too_much_is_a_bias_of_plus_2_with_no_spread() -> None:
    found = agreement([(x + 2.0, x) for x in (30.0, 45.0, 60.0)])
    assert (found.bias, found.sd, found.loa, found.mae, found.rmse) == (2, 0, (2, 2), 2, 2)
    assert found.r == pytest.approx(1)
    # Residuals 3 x 4 against a spread of 225 + 0 + 225.
    assert found.r2 == pytest.approx(1 - 12 / 450)


def test_25_the_bias_is_predicted_minus_reference() -> None:
    assert agreement([(40.0, 50.0), (52.0, 60.0)]).bias == -9


def test_25_the_spread_is_that_of_a_sample() -> None:
    found = agreement([(1.0, 0.0), (3.0, 0.0)])  # mean 2, squares 1 + 1, over n - 1 = 1
    assert found.sd == pytest.approx(math.sqrt(2))
    assert found.loa == pytest.approx((2 - 1.96 * math.sqrt(2), 2 + 1.96 * math.sqrt(2)))


def test_too_few_pairs_give_nan_and_no_warning() -> None:
    none, one = agreement([]), agreement([(50.0, 40.0)])
    assert none.n == 0 and all(map(math.isnan, (none.bias, none.mae, none.rmse, none.r, none.sd)))
    assert (one.n, one.bias) == (1, 10) and math.isnan(one.sd) and math.isnan(one.r)
    constant = agreement([(1.0, 0.1), (2.0, 0.1), (3.0, 0.1)])
    assert math.isnan(constant.r) and math.isnan(constant.r2)


@given(st.integers(0, 10**6), st.integers(2, 20))
def test_the_correlation_is_pearsons(seed: int, n: int) -> None:
    pairs = np.random.default_rng(seed).normal(50, 10, (n, 2))
    found = agreement([(float(p), float(q)) for p, q in pairs])
    assert found.r == pytest.approx(np.corrcoef(pairs.T)[0, 1], abs=1e-9)


@given(st.lists(st.tuples(st.floats(-99, 99), st.floats(-99, 99)), min_size=2, max_size=12))
def test_agreement_does_not_depend_on_the_order(pairs: list[tuple[float, float]]) -> None:
    first, second = agreement(pairs), agreement(pairs[::-1])
    np.testing.assert_equal(first.to_plain(), second.to_plain())


def test_a_bootstrap_draws_patients_with_all_their_cases() -> None:
    alike = {"a": [1.0, 1.0], "b": [0.0, 0.0]}
    low, high = patient_bootstrap(alike)
    assert (low, high) == (0.0, 1.0)  # only 0, 1/2 and 1 can come out, the ends often
    assert patient_bootstrap({"a": [0.3], "b": [0.3, 0.3]}) == pytest.approx((0.3, 0.3))


def test_a_bootstrap_is_near_the_normal_interval() -> None:
    values = np.random.default_rng(0).normal(0.9, 0.05, 400)
    low, high = patient_bootstrap({f"p{i}": [v] for i, v in enumerate(values)})
    half = 1.96 * values.std(ddof=1) / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=6e-4)


def test_a_bootstrap_is_seeded_and_blind_to_order() -> None:
    values = {"a": [0.5, 0.7], "b": [0.9], "c": [0.1, math.nan], "d": [math.nan]}
    backwards = dict(reversed(values.items()))
    assert patient_bootstrap(values) == patient_bootstrap(backwards)
    many = {str(i): [math.sin(i)] for i in range(50)}
    assert patient_bootstrap(many) == patient_bootstrap(many) != patient_bootstrap(many, seed=7)
    assert all(map(math.isnan, patient_bootstrap({"a": [math.nan]})))
