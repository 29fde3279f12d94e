"""What happened, as events, and the sinks that record or show them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from nnunetlike.core.registry import Registry

Event = Mapping[str, Any]
"""One fact of a run: `{"event": "epoch", "epoch": 3, "train_loss": -0.4, ...}`; plain types."""


class Sink(Protocol):
    """Takes events as they come."""

    def __init__(self, folder: Path) -> None:
        """Record into files of `folder`, or show what happens there."""
        ...

    def write(self, event: Event) -> None:
        """Record or show one event."""
        ...


SINKS: Registry[type[Sink]] = Registry("monitor", "nnunetlike.monitoring")
