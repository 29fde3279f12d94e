"""The public models of nnU-Net v1: what they segment, and where they lie.

The facts are in `catalogue.json`. Source: the list in nnU-Net v1's `download_pretrained_model.py`;
sizes and hashes where they are known.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from nnunetlike.core.errors import UsageError
from nnunetlike.core.paths import task_number


@dataclass(frozen=True)
class PublicFile:
    """One zip on a server."""

    url: str
    size: int | None
    """In bytes; None: not known."""

    sha256: str | None


@dataclass(frozen=True, kw_only=True)
class PublicModel:
    """One entry of the catalogue; it may be several zips."""

    name: str
    """Of the task."""

    subject: str
    source: str
    """The data set it was trained on."""

    page: str
    """Where that data set is described."""

    structures: tuple[str, ...]
    channels: tuple[str, ...]
    """Images of a case in order: `ID_0000`, `ID_0001`, ..."""

    licence: str
    notes: tuple[str, ...]
    downloads: tuple[PublicFile, ...]


@cache
def catalogue() -> dict[str, PublicModel]:
    """Return all public models by name."""
    text = files(__package__).joinpath("catalogue.json").read_text(encoding="utf-8")
    return {entry["name"]: _model(entry) for entry in json.loads(text)}


def public_model(name: str) -> PublicModel:
    """Return the public model of a task.

    Args:
        name: `Task004_Hippocampus` in any case, or its number.

    Raises:
        UsageError: there is none; the message names the nearest.
    """
    known = catalogue()
    for model in known.values():
        same_number = name.isdigit() and task_number(model.name) == int(name)
        if same_number or model.name.lower() == name.lower():
            return model
    lower = {model.lower(): model for model in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.4)
    hint = f" Did you mean {lower[near[0]]!r}?" if near else ""
    raise UsageError(
        f"no public model is called {name!r}.{hint} nnUNet_print_available_pretrained_models lists "
        "all"
    )


def _model(entry: dict[str, Any]) -> PublicModel:
    lists = {key: tuple(entry[key]) for key in ("structures", "channels", "notes")}
    downloads = tuple(PublicFile(**download) for download in entry["downloads"])
    return PublicModel(**{**entry, **lists, "downloads": downloads})
