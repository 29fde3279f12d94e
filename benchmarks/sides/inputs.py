"""How the sides in our own environment read their inputs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Call = Callable[[], Any]


def read(folder: Path, *names: str) -> list[Any]:
    """Return the parameters of a stage and arrays of its inputs."""
    return [
        json.loads((folder / "params.json").read_text()),
        *(np.load(folder / f"{name}.npy") for name in names),
    ]
