"""One seed for a run; independent streams for every index drawn from it."""

from __future__ import annotations

import numpy as np


def stream(seed: int, *path: int) -> np.random.Generator:
    """Return the generator that belongs to `path` (for instance rank, batch index) under `seed`.

    The same seed and path always give the same stream; different paths give independent ones, so
    a batch can be made by any worker, in any order.

    Source: numpy's SeedSequence, spawn keys.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=path))


def fresh_seed() -> int:
    """Return a seed from the operating system's entropy, for runs that ask for none."""
    return int(np.random.SeedSequence().generate_state(1)[0])
