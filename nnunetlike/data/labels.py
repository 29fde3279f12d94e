"""What the integers of a label map mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nnunetlike.core.errors import DataError


@dataclass(frozen=True)
class LabelSet:
    """Names of the labels by value; 0 is background."""

    names: Mapping[int, str]
    ignore: int | None = None
    """The label of pixels that have none, which neither train nor count; it is in `names` too."""

    def __post_init__(self) -> None:
        if 0 not in self.names:
            raise DataError(
                f'labels {dict(self.names)} lack 0, the background; add \'"0": "background"\' to '
                "the labels in dataset.json"
            )

    @property
    def foreground(self) -> list[int]:
        """Label values above 0 in the order of dataset.json (v1's `all_classes`)."""
        return [value for value in self.names if value > 0 and value != self.ignore]
