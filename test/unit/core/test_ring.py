"""Arrays that change hands in shared memory: what arrives, when slots come back, what if none."""

from __future__ import annotations

import errno
import gc
import logging
import os
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetlike.core import ring as rings
from nnunetlike.core.ring import HELD, Parcel, Ring, Slot, Ticket, packed

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd (Linux)")
PLENTY = 2**30


def ring_of(slots: int, memory: int = PLENTY) -> Ring:
    return Ring(slots - HELD, memory, "batches")


def sent(ring: Ring, content: Any) -> Any:
    """Hand an item over as between two processes, except that both are this one."""
    ticket = ring.ticket()
    parcel = packed(content, ring.slots, ticket)
    return ring.opened(pickle.loads(pickle.dumps(parcel)), ticket)


def free_slots(ring: Ring) -> int:
    return len(ring._free)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        is_equal = np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        layout = ("c_contiguous", "f_contiguous") if min(a.strides, default=1) > 0 else ()
        return (
            type(a) is type(b)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and is_equal
            and all(getattr(b.flags, name) >= getattr(a.flags, name) for name in layout)
        )
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def odd_content() -> dict[str, Any]:
    cube = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    return {
        "image": cube,
        "targets": [cube[0].astype(np.int16), (cube[1] > 14, np.array(3, np.uint8))],
        "turned": np.asfortranarray(cube),
        "strided": cube[:, ::2, ::-1],
        "empty": np.zeros((0, 3), np.float64),
        "nan": np.array([np.nan, 1.0]),
        "big-endian": np.array([1, 256], ">i4"),
        "records": np.array([(1, 2.0)], np.dtype([("label", "u1"), ("share", "f8")])),
        "objects": np.array(["a", None], object),
        "case_ids": ["a", "b"],
        7: None,
    }


def test_nested_items_arrive_as_they_were_sent() -> None:
    ring = ring_of(3)
    content = odd_content()
    arrived = sent(ring, content)
    assert same(content, arrived)
    assert free_slots(ring) == 2
    assert arrived["image"].flags.writeable
    assert arrived["image"].ctypes.data % 64 == 0


def test_only_descriptions_are_pickled() -> None:
    ring = ring_of(3)
    image = np.ones((2, 1, 64, 64, 64), np.float32)
    parcel = packed({"image": image}, ring.slots, ring.ticket())
    assert parcel.size == image.nbytes
    assert len(pickle.dumps(parcel)) < 1000


def test_a_slot_comes_back_when_nothing_looks_at_it_any_more() -> None:
    ring = ring_of(3)
    batch = sent(ring, {"image": np.arange(8.0), "label": np.arange(4)})
    tensor = torch.from_numpy(batch["image"])[2:]
    part = batch["label"].reshape(2, 2)[1]
    del batch
    assert free_slots(ring) == 2
    del part
    assert free_slots(ring) == 2
    loss = (tensor.requires_grad_() ** 2).sum()  # autograd holds it until backward
    del tensor
    assert free_slots(ring) == 2
    loss.backward()
    del loss
    gc.collect()
    assert free_slots(ring) == 3


def test_what_holds_no_array_gives_its_slot_back_at_once() -> None:
    ring = ring_of(3)
    assert sent(ring, {"case_ids": ["a"]}) == {"case_ids": ["a"]}
    assert free_slots(ring) == 3


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 40)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_item_changes_while_it_is_held(steps: list[tuple[int, int]]) -> None:
    ring = ring_of(4)
    held: list[tuple[int, Any]] = []
    for number, (release, length) in enumerate(steps):
        if release < len(held):
            del held[release]
        held.append((number, sent(ring, [np.full(length, number), np.full((2, length), number)])))
        assert all((array == n).all() for n, item in held for array in item)
        assert free_slots(ring) == max(0, 4 - len(held)) or len(held) > 4
    held.clear()
    assert free_slots(ring) == 4


def test_without_a_free_slot_items_are_pickled() -> None:
    ring = ring_of(3)
    held = [sent(ring, np.full(3, i)) for i in range(5)]
    assert free_slots(ring) == 0
    assert [int(item[0]) for item in held] == list(range(5))
    del held
    assert free_slots(ring) == 3


def test_a_slot_grows_to_what_it_must_hold_and_keeps_what_is_looked_at() -> None:
    ring = ring_of(3)
    small = sent(ring, np.arange(4))
    assert sent(ring, np.arange(100_000))[-1] == 99_999
    large = sent(ring, np.arange(200_000))
    assert large[-1] == 199_999
    assert small.tolist() == [0, 1, 2, 3]
    assert [os.fstat(slot.descriptor).st_size for slot in ring.slots] == [0, 1_600_000, 32]


def test_fewer_items_are_made_ahead_where_memory_is_short(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    ring = Ring(8, 4 * 2**20, "batches")
    first = [sent(ring, np.ones(2**17, np.uint8)) for _ in range(10)]
    assert ring.ahead == 8
    item = np.ones(2**20, np.uint8)
    del first[:9]
    large = sent(ring, item)  # does not fit into a tenth and is pickled
    assert ring.ahead == 4 - HELD
    assert caplog.messages == [
        "batches: at most 2 made ahead, since each takes 1.0 MiB of the 4.0 MiB they may take "
        "together"
    ]
    held = [sent(ring, item) for _ in range(5)]
    assert free_slots(ring) == 0
    del first, large, held
    used = [os.fstat(slot.descriptor).st_size for slot in ring.slots]
    assert sum(used) <= 4 * 2**20  # the others gave their memory back to the system
    assert len(caplog.messages) == 1


def test_items_are_pickled_one_at_a_time_where_memory_holds_no_three(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    ring = Ring(8, 2 * 2**20 + 5, "batches")
    item = np.ones(2**20, np.uint8)
    held = [sent(ring, item) for _ in range(4)]
    assert all(same(item, arrived) for arrived in held)
    assert ring.ahead == 1
    assert ring.ticket() is None
    assert caplog.messages == [
        "batches: at most 1 made ahead and sent through pipes, since each takes 1.0 MiB of the "
        "2.0 MiB they may take together"
    ]
    assert not any(os.fstat(slot.descriptor).st_size for slot in ring.slots)


def test_an_item_larger_than_all_memory_is_pickled() -> None:
    ring = Ring(1, 10, "batches")
    for _ in range(3):
        assert len(sent(ring, np.ones(100))) == 100
    assert ring.ahead == 1


@pytest.mark.parametrize("step", ["grow", "view"])
def test_what_the_system_refuses_is_pickled_and_told_once(
    step: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(slot: Slot, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Slot, step, refuse)
    caplog.set_level(logging.INFO)
    ring = ring_of(3)
    for i in range(4):
        assert sent(ring, np.full(3, i)).tolist() == [i, i, i]
    assert free_slots(ring) == 3
    assert caplog.messages == [
        "batches are sent through pipes: no shared memory ([Errno 28] No space left on device)"
    ]


def test_a_system_without_such_memory_pickles_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delattr(os, "memfd_create")
    ring = ring_of(5)
    assert ring.ahead == 3
    assert sent(ring, np.arange(3)).tolist() == [0, 1, 2]
    assert caplog.messages == ["arrays of workers are sent through pipes: this system has no memfd"]


def test_a_system_that_forbids_such_memory_pickles_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def forbid(name: str) -> int:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(os, "memfd_create", forbid)
    assert sent(ring_of(5), np.arange(3)).tolist() == [0, 1, 2]
    assert "no memory can be shared ([Errno 1] Operation not permitted)" in caplog.text


def test_the_slot_of_a_call_that_failed_is_given_again() -> None:
    ring = ring_of(3)
    tickets = [ring.ticket() for _ in range(3)]
    assert ring.ticket() is None
    ring.give_back(tickets[1])
    ring.give_back(None)
    again = ring.ticket()
    assert isinstance(again, Ticket)
    assert again == tickets[1]


def test_a_ring_leaves_no_open_descriptors() -> None:
    def opened() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a link of it may be gone

    gc.collect()
    before = opened()
    ring = ring_of(6)
    array = sent(ring, np.arange(3))
    assert opened() == before + 7  # one per slot, and one of the memory that is mapped
    del ring
    assert array.tolist() == [0, 1, 2]
    del array
    assert opened() == before


def test_a_fork_server_can_pass_the_slots_of_any_ring() -> None:
    assert len(Ring(1000, PLENTY, "batches").slots) == rings.MOST_SLOTS
    assert Parcel([], 0).slot is None
