"""What a GDKVM remembers between two frames; its size does not depend on how many there were.

Axes: B batch, O objects, h and w tokens of a frame along height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import Tensor

from nnunetlike.core.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoState:
    """All that passes from one frame to the next."""

    memory: Tensor
    """The key-value memory, (B, O, heads, C of a key, C of a value), float32 or float64."""

    sensory: Tensor
    """The sensory memory, (B, O, C, h, w); C is 0 where it is left out."""

    objects: Tensor
    """The object memory: running means of summaries, (B, O, Q, C + 1)."""

    masks: Tensor
    """Probability of each object in the frame before, (B, O, h, w); 0 without mask feedback."""

    def to_plain(self) -> dict[str, Tensor]:
        """Return the tensors by name, for `torch.save`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_plain(cls, content: Mapping[str, Tensor]) -> VideoState:
        """Return the state that `to_plain` gave.

        Raises:
            DataError: entries are missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(content) != names:
            raise DataError(
                f"the state of a video has the entries {', '.join(sorted(names))}, but here are "
                f"{', '.join(sorted(content))}; it was saved by another version"
            )
        return cls(**content)

    def detach(self) -> VideoState:
        """Return the state without its history."""
        return VideoState(**{name: tensor.detach() for name, tensor in self.to_plain().items()})
