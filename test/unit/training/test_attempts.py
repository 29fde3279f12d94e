"""Processes of one attempt find one another, whatever dead ones have left in the store."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import HashStore

from nnunetlike.core.errors import PeerError
from nnunetlike.training.attempts import agree_on_name

HANG_S = 60.0


def names(store: HashStore, delays: list[float]) -> list[str]:
    def member(rank: int) -> str:
        time.sleep(delays[rank])
        return agree_on_name(store, rank, len(delays), HANG_S)

    with ThreadPoolExecutor(len(delays)) as pool:
        return list(pool.map(member, range(len(delays))))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_all_processes_get_the_same_name(size: int) -> None:
    assert len(set(names(HashStore(), [0.0] * size))) == 1


@pytest.mark.parametrize("delays", [[0, 0.3, 0], [0.3, 0, 0], [0, 0.2, 0.4]])
def test_each_attempt_has_a_name_of_its_own_whoever_comes_first(delays: list[float]) -> None:
    store = HashStore()
    found = [names(store, delays) for _ in range(3)]
    assert all(len(set(attempt)) == 1 for attempt in found)
    assert len({attempt[0] for attempt in found}) == 3


def test_another_number_of_processes_is_another_attempt() -> None:
    store = HashStore()
    found = [names(store, [0.0] * size) for size in (3, 2, 4)]
    assert all(len(set(attempt)) == 1 for attempt in found)


def test_an_invitation_to_the_dead_is_not_accepted() -> None:
    store = HashStore()
    store.set("invitation", json.dumps(["old", "dead 0", "dead 1"]))
    store.set("hello/1", "dead 1")
    found = names(store, [0, 0.2])
    assert found[0] == found[1] != "old"


def test_who_comes_alone_is_told_so_in_time() -> None:
    store = HashStore()
    store.set("hello/1", "of a dead process")
    with pytest.raises(PeerError, match=r"not all 2 processes came within 0\.2 s"):
        agree_on_name(store, 0, 2, 0.2)
