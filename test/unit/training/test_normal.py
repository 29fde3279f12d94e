"""Noise by key and place: against the plain formula, and as random as it should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nnunetlike.training.augmentation.normal import PAIRS, add_noise, random_bits

COUNT = 1_000_000
WORD = 2**64 - 1


def field(key: int, count: int = COUNT) -> np.ndarray:
    found = np.empty(count, np.float32)
    add_noise(np.zeros(count, np.float32), np.float32(1), np.uint64(key), found)
    return found


def splitmix(counter: int) -> int:
    z = ((counter ^ (counter >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def plainly(key: int, pair: int) -> tuple[float, float]:
    """Box and Muller's formula in double precision; angles begin at an odd place."""
    bits = splitmix((key + pair * 0x9E3779B97F4A7C15) & WORD)
    radius = math.sqrt(-2 * math.log(((bits >> 32) + 0.5) / 2**32))
    low = bits & (2**32 - 1)
    signed = low % 2**30 - 2**30 * (low >> 29 & 1)
    angle = signed / 2**30 * math.pi / 2
    sine, cosine = math.sin(angle), math.cos(angle) * (-1 if low >> 31 else 1)
    pair_of = (cosine, sine) if low >> 30 & 1 else (sine, cosine)
    return radius * pair_of[0], radius * pair_of[1]


def test_random_bits_are_the_published_ones_of_splitmix() -> None:
    # the first three numbers of the seed 1234567
    step, seed = 0x9E3779B97F4A7C15, 1234567
    found = [int(random_bits(np.uint64((seed + k * step) & WORD))) for k in (1, 2, 3)]
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("key", [0, 1, 2**63 + 12345])
def test_the_field_is_box_and_mullers_formula(key: int) -> None:
    found = field(key, 6 * PAIRS)
    wanted = np.empty_like(found)
    for pair in range(3 * PAIRS):
        block, place = divmod(pair, PAIRS)
        at = 2 * PAIRS * block + place
        wanted[at], wanted[at + PAIRS] = plainly(key, pair)
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_a_shorter_field_is_the_beginning_of_a_longer_one() -> None:
    longer = field(7, 3000)
    for count in (0, 1, PAIRS, 2 * PAIRS + 1, 2999):
        assert np.array_equal(field(7, count), longer[:count])


def test_the_noise_is_added_to_the_values_times_its_deviation() -> None:
    values, found = np.arange(5000, dtype=np.float32), np.empty(5000, np.float32)
    add_noise(values, np.float32(0.5), np.uint64(3), found)
    assert np.array_equal(found, values + np.float32(0.5) * field(3, 5000))


@pytest.mark.parametrize("key", [0, 5, 2**40 + 1])
def test_moments_are_those_of_the_normal_distribution(key: int) -> None:
    found = field(key).astype(np.float64)
    powers = [np.mean(found**n) for n in (1, 2, 3, 4, 6)]
    spreads = [math.sqrt(n / COUNT) for n in (1, 2, 15, 96, 10170)]  # variances of the powers
    for power, wanted, spread in zip(powers, (0, 1, 0, 3, 15), spreads, strict=True):
        assert abs(power - wanted) < 4 * spread


@pytest.mark.parametrize("key", [0, 5, 2**40 + 1])
def test_the_distribution_function_is_the_normal_one(key: int) -> None:
    found = field(key)
    halves = found.reshape(-1, 2, 250)  # near enough to the two halves of blocks
    for some in (found, halves[:, 0].reshape(-1), halves[:, 1].reshape(-1)):
        assert stats.kstest(some.astype(np.float64), "norm").pvalue > 1e-3


def test_tails_hold_as_much_as_they_should() -> None:
    found = np.concatenate([field(key) for key in range(20)])
    for limit in (2.0, 3.0, 4.0, 5.0):
        for beyond in ((found > limit).sum(), (found < -limit).sum()):
            wanted = len(found) * stats.norm.sf(limit)
            assert abs(beyond - wanted) < 4 * math.sqrt(wanted) + 1
    assert np.abs(found).max() < math.sqrt(2 * math.log(2**33)) + 1e-4


@pytest.mark.parametrize("lag", [1, 2, 128, PAIRS, 2 * PAIRS, 16384])
def test_neither_numbers_nor_their_squares_depend_on_others(lag: int) -> None:
    found = field(11).astype(np.float64)
    for values in (found, found**2 - 1):
        together = np.mean(values[lag:] * values[:-lag]) / np.mean(values**2)
        assert abs(together) < 4 / math.sqrt(COUNT - lag)


@pytest.mark.parametrize("other", [1, 2, 2**32, 2**63])
def test_fields_of_like_keys_are_independent(other: int) -> None:
    one, two = field(0).astype(np.float64), field(other).astype(np.float64)
    assert abs(np.mean(one * two)) < 4 / math.sqrt(COUNT)
    assert abs(np.mean((one**2 - 1) * (two**2 - 1)) / 2) < 4 / math.sqrt(COUNT)
    assert len(np.intersect1d(one[:1000], two[:1000])) < 3
