"""The global random generators as a checkpoint keeps them: python, numpy, torch, CUDA."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch


def random_states() -> dict[str, Any]:
    """Return the states of all generators, as tensors and plain types."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [
            str(kind),
            torch.tensor(np.asarray(keys).astype(np.int64)),
            int(position),
            int(has_gauss),
            float(cached),
        ],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_states(content: Mapping[str, Any]) -> None:
    """Put all generators into the states that `random_states` returned.

    CUDA devices that are not here now, or were not there then, are left as they are.
    """
    version, words, gauss = content["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, position, has_gauss, cached = content["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(content["torch"])
    for number, state in enumerate(content["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, number)
