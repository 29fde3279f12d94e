"""metrics.jsonl: one line of JSON per epoch, the record that everything else can be drawn from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetlike.core.serialization import write_text
from nnunetlike.monitoring import SINKS, Event

FILE = "metrics.jsonl"


class JsonLines:
    """Appends the `epoch` events to `metrics.jsonl` in a folder.

    A run that starts at epoch n drops the lines of epochs n and above, which it is about to repeat.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE

    def write(self, event: Event) -> None:
        """Append an epoch; NaN and infinity become null, as JSON knows neither."""
        if event["event"] == "start":
            self._keep_before(event["epoch"])
        if event["event"] == "epoch":
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(_finite(event), allow_nan=False) + "\n")

    def _keep_before(self, epoch: int) -> None:
        old = [line for line in read_events(self.path) if line["epoch"] < epoch]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in old))


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of a metrics.jsonl; none if it does not exist.

    A line that a killed process left unfinished is skipped.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("}\n")]


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


SINKS.add("jsonl", JsonLines)
