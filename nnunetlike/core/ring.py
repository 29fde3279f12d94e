"""Slots of memory that two processes see: arrays change hands in them without being pickled.

A slot is anonymous memory (`memfd`), known by a file descriptor only. It has no name, so nothing of
it stays behind however a process ends, and it is no part of `/dev/shm`, whose size (64 MB in
Docker) does not matter. A slot grows to what is put into it. Its owner gives it to a worker with a
call, builds arrays on what the worker wrote, and has it back when the last array or tensor that
looks at it is gone. What has no slot, or does not fit, travels as before: pickled, in a pipe.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import reduction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnunetlike.core.resources import in_words

ALIGNED = 64
"""Arrays begin at multiples of so many bytes: the width of a cache line and of AVX-512."""

HELD = 2
"""Items that their taker holds at most: the one in use, and the last one until it lets it go."""

MOST_SLOTS = 200
"""A fork server takes at most 256 descriptors at a time."""

logger = logging.getLogger(__name__)
Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]


class Slot:
    """Anonymous memory; given to a worker process with the arguments that it starts with.

    Args:
        descriptor: of the memory.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None

    def __reduce__(self) -> tuple[Callable[[Any], Slot], tuple[Any]]:
        return _inherited, (reduction.DupFd(self.descriptor),)

    def __del__(self) -> None:
        os.close(self.descriptor)

    def grow(self, size: int) -> None:
        """Have at least `size` bytes.

        Raises:
            OSError: there is too little memory, which then does not show when it is written to.
        """
        if os.fstat(self.descriptor).st_size < size:
            os.posix_fallocate(self.descriptor, 0, size)

    def view(self, size: int) -> Bytes:
        """Return the first `size` bytes; what earlier views look at stays.

        Raises:
            OSError: this process cannot map so much.
        """
        if self._map is None or len(self._map) < size:
            self._map = mmap.mmap(self.descriptor, 0)
        return np.frombuffer(self._map, np.uint8, size)

    def drop(self) -> None:
        """Give the memory back to the system, for all processes: nobody may look at it any more."""
        self._map = None
        os.truncate(self.descriptor, 0)


def _inherited(descriptor: Any) -> Slot:
    return Slot(descriptor.detach())


def new_slots(count: int) -> tuple[Slot, ...]:
    """Return empty slots; none, and a line in the log says why, where the system has no such."""
    if not hasattr(os, "memfd_create"):
        logger.info("arrays of workers are sent through pipes: this system has no memfd")
        return ()
    try:
        return tuple(Slot(os.memfd_create("nnunetlike")) for _ in range(count))
    except OSError as error:
        logger.info("arrays of workers are sent through pipes: no memory can be shared (%s)", error)
        return ()


@dataclass(frozen=True)
class Ticket:
    """The slot that a call may put its arrays into, and how many bytes of it."""

    slot: int
    most: int


@dataclass(frozen=True)
class Placed:
    """Where an array lies in a slot."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    order: Literal["C", "F"]

    def on(self, memory: Bytes) -> Array:
        """Return the array, which looks at the memory."""
        end = self.offset + math.prod(self.shape) * self.dtype.itemsize
        flat = memory[self.offset : end].view(self.dtype)
        return flat.reshape(self.shape, order=self.order)


@dataclass(frozen=True)
class Parcel:
    """What a worker sends: its result with a `Placed` for each array, or as it is."""

    content: Any
    size: int
    """Bytes that the arrays need in a slot."""

    slot: int | None = None
    problem: str = ""
    """Why the slot could not be had."""


def packed(content: Any, slots: Sequence[Slot], ticket: Ticket | None) -> Parcel:
    """Return the parcel of a result, its arrays copied into the slot of the ticket if they fit.

    Args:
        content: arrays in dictionaries, lists and tuples, nested as you like; all else is pickled.
        slots: of the ring, as this process knows them.
        ticket: None where the result is to be pickled.
    """
    arrays: list[tuple[Array, Placed]] = []
    described = _with_leaves(content, lambda leaf: _place(leaf, arrays))
    size = _end(arrays)
    if ticket is None or not 0 < size <= ticket.most:
        return Parcel(content, size)
    slot = slots[ticket.slot]
    try:
        slot.grow(size)
        memory = slot.view(size)
    except OSError as error:
        return Parcel(content, size, problem=str(error))
    for array, place in arrays:
        np.copyto(place.on(memory), array)
    return Parcel(described, size, ticket.slot)


def _place(leaf: Any, arrays: list[tuple[Array, Placed]]) -> Any:
    """Return a place behind the arrays so far for an array of plain numbers, else the leaf."""
    if type(leaf) is not np.ndarray or leaf.dtype.hasobject:
        return leaf
    is_fortran = leaf.flags.f_contiguous and not leaf.flags.c_contiguous
    offset = -(-_end(arrays) // ALIGNED) * ALIGNED
    place = Placed(offset, leaf.shape, leaf.dtype, "F" if is_fortran else "C")
    arrays.append((leaf, place))
    return place


def _end(arrays: Sequence[tuple[Array, Placed]]) -> int:
    return arrays[-1][1].offset + arrays[-1][0].nbytes if arrays else 0


def _with_leaves(item: Any, change: Callable[[Any], Any]) -> Any:
    """Return the item with everything changed that is no dictionary, list or tuple in it."""
    kind = type(item)
    if kind is dict:
        return {key: _with_leaves(value, change) for key, value in item.items()}
    if kind in (list, tuple):
        return kind(_with_leaves(value, change) for value in item)
    return change(item)


class _Lease:
    """Memory of a slot for as long as something looks at it; then the slot is given back."""

    def __init__(self, memory: Bytes, give_back: Callable[[], None]) -> None:
        self.__array_interface__ = memory.__array_interface__
        self._memory = memory
        self._give_back = give_back

    def __del__(self) -> None:
        self._give_back()


class Ring:
    """The slots of one owner: which are free, and how many items may be there at a time.

    Args:
        wanted: items that are to be made ahead.
        memory: bytes that all these and those that their taker holds may take together.
        title: what the items are called in the log.

    Attributes:
        slots: for `packed`, in the workers; none where memory cannot be shared.
    """

    def __init__(self, wanted: int, memory: int, title: str) -> None:
        self.slots = new_slots(min(wanted + HELD, MOST_SLOTS))
        self._items = wanted + HELD
        self._memory = memory
        self._title = title
        self._has_problem = False
        self._free = deque(range(len(self.slots)))  # safe in a finalizer, whatever thread it is in
        self._dropped = 0

    @property
    def ahead(self) -> int:
        """How many items may be in the making or ready; at least 1."""
        return max(1, self._items - HELD)

    def ticket(self) -> Ticket | None:
        """Return a free slot, the last used one first; None if there is none."""
        while self._free:
            slot = self._free.pop()
            if HELD < self._items >= len(self.slots) - self._dropped:
                return Ticket(slot, self._memory // self._items)
            self.slots[slot].drop()
            self._dropped += 1
        return None

    def give_back(self, ticket: Ticket | None) -> None:
        """Take back the slot of a call that put nothing into it."""
        if ticket is not None:
            self._free.append(ticket.slot)

    def opened(self, parcel: Parcel, ticket: Ticket | None) -> Any:
        """Return what a worker sent; its slot comes back when no array of it is left.

        Raises:
            OSError: this process cannot map the slot.
        """
        self._note(parcel)
        if parcel.slot is None:
            self.give_back(ticket)
            return parcel.content
        number = parcel.slot
        memory = self.slots[number].view(parcel.size)
        lease = _Lease(memory, lambda: self._free.append(number))
        whole = np.asarray(lease)
        return _with_leaves(
            parcel.content, lambda leaf: leaf.on(whole) if isinstance(leaf, Placed) else leaf
        )

    def _note(self, parcel: Parcel) -> None:
        """Learn how large items are; have no more of them than memory allows."""
        if parcel.problem and not self._has_problem:
            self._has_problem = True
            logger.info(
                "%s are sent through pipes: no shared memory (%s)", self._title, parcel.problem
            )
        if self._items <= HELD or parcel.size * self._items <= self._memory:
            return
        self._items = self._memory // parcel.size
        logger.info(
            "%s: at most %d made ahead%s, since each takes %s of the %s they may take together",
            self._title,
            self.ahead,
            "" if self._items > HELD else " and sent through pipes",
            in_words(parcel.size),
            in_words(self._memory),
        )
