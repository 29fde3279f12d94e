"""Global random generators through a checkpoint and back."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from nnunetlike.training.random_states import random_states, restore_random_states


def _draw() -> list[float]:
    return [random.random(), np.random.normal(), float(torch.rand(())), np.random.normal()]


def test_all_generators_go_on_where_the_checkpoint_was_saved(tmp_path: Path) -> None:
    np.random.normal()  # leaves a second normal number waiting, which must be kept too
    torch.save(random_states(), tmp_path / "states")
    drawn = _draw()
    restore_random_states(torch.load(tmp_path / "states", weights_only=True))
    assert _draw() == drawn
