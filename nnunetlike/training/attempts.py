"""A name that the processes of one attempt at a training share, and those of no earlier one.

A launcher that starts processes again gives them the same store, in which what the dead ones wrote
is still to be read: addresses, counters, places where they met. How often it did so is no name:
launchers on several machines count for themselves.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid

from torch._C._distributed_c10d import Store

from nnunetlike.core.errors import PeerError

LOOK_S = 0.02


def agree_on_name(store: Store, rank: int, world_size: int, timeout_s: float) -> str:
    """Return the name of this attempt, as soon as all its processes have it.

    Everyone says hello with a word never used before. Process 0 invites those whose hellos it
    reads, which may be old ones; only who is meant accepts, and all go on only when all have.

    Raises:
        PeerError: some did not come in time.
    """
    hello = uuid.uuid4().hex
    store.set(f"hello/{rank}", hello)
    end = time.monotonic() + timeout_s
    name = ""
    while time.monotonic() < end:
        name = _invite(store, name, world_size) if rank == 0 else _accept(store, name, rank, hello)
        if name and rank == 0 and store.add(f"accepted/{name}", 0) == world_size - 1:
            store.set(f"complete/{name}", "")
        if name and store.check([f"complete/{name}"]):
            return name
        time.sleep(LOOK_S)
    raise PeerError(f"not all {world_size} processes came within {timeout_s:g} s")


def _invite(store: Store, invited: str, world_size: int) -> str:
    """Invite whoever has said hello, once all have; return the name of the latest invitation."""
    keys = [f"hello/{rank}" for rank in range(world_size)]
    if not store.check(keys):
        return ""
    hellos = [store.get(key).decode() for key in keys]
    name = hashlib.sha256("".join(hellos).encode()).hexdigest()[:16]
    if name != invited:
        store.set("invitation", json.dumps([name, *hellos]))
    return name


def _accept(store: Store, accepted: str, rank: int, hello: str) -> str:
    """Accept the latest invitation if it is meant for this process; return its name."""
    if not store.check(["invitation"]):
        return accepted
    name, *hellos = json.loads(store.get("invitation"))
    if name == accepted or hello not in hellos[rank : rank + 1]:
        return accepted
    store.add(f"accepted/{name}", 1)
    return str(name)
