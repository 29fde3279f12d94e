"""Specs (frozen dataclasses that describe a part) to plain dictionaries and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from nnunetlike.core.errors import DataError
from nnunetlike.core.registry import Registry


def spec_to_dict(spec: Any, registry: Registry[Any]) -> dict[str, Any]:
    """Return `{"name": registered name of the spec's class, **settings}`."""
    return {"name": registry.name_of(type(spec)), **asdict(spec)}


def spec_from_dict(content: Mapping[str, Any], registry: Registry[Any]) -> Any:
    """Return the spec that `spec_to_dict` described.

    Raises:
        DataError: a setting is unknown to the spec's class.
    """
    settings = dict(content)
    kind = registry.get(settings.pop("name"))
    known = {field.name for field in fields(kind)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise DataError(
            f"{registry.kind} {content['name']!r} has no setting {', '.join(unknown)}; it knows "
            f"{', '.join(sorted(known))}. The file was written by another version."
        )
    return kind(**settings)
