"""Cases dealt out to processes, over random costs."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetlike.inference.dealing import deal

costs = st.floats(0, 1e6, allow_subnormal=False)


def loads(values: list[float], hands: list[list[int]]) -> list[float]:
    return [sum(values[item] for item in hand) for hand in hands]


def best(values: list[float], hands: int) -> float:
    """Return the smallest possible load of the fullest hand, by trying all deals."""
    deals = product(range(hands), repeat=len(values))
    return min(max(loads(values, by_owner(owners, hands))) for owners in deals)


def by_owner(owners: tuple[int, ...], hands: int) -> list[list[int]]:
    return [[item for item, owner in enumerate(owners) if owner == hand] for hand in range(hands)]


@given(values=st.lists(costs, max_size=40), hands=st.integers(1, 12))
def test_every_item_is_in_exactly_one_hand(values: list[float], hands: int) -> None:
    dealt = deal(values, hands)
    assert len(dealt) == hands
    assert sorted(item for hand in dealt for item in hand) == list(range(len(values)))
    assert all(hand == sorted(hand) for hand in dealt)


@given(values=st.lists(costs, max_size=7), hands=st.integers(1, 3))
@settings(deadline=None)
def test_the_fullest_hand_is_near_the_best_possible(values: list[float], hands: int) -> None:
    fullest = max(loads(values, deal(values, hands)))
    assert fullest <= (4 / 3 - 1 / (3 * hands)) * best(values, hands) * (1 + 1e-9)


@given(values=st.lists(costs, min_size=1, max_size=40), hands=st.integers(1, 12))
def test_no_hand_holds_more_than_the_mean_and_one_item(values: list[float], hands: int) -> None:
    assert max(loads(values, deal(values, hands))) <= (sum(values) / hands + max(values)) * (
        1 + 1e-9
    )


@given(values=st.lists(st.just(0.0), max_size=20), hands=st.integers(1, 5))
def test_items_that_cost_nothing_are_spread(values: list[float], hands: int) -> None:
    numbers = [len(hand) for hand in deal(values, hands)]
    assert max(numbers) - min(numbers) <= 1


def test_the_dearest_goes_first() -> None:
    assert deal([1, 5, 2, 4, 3], 2) == [[0, 1, 2], [3, 4]]
