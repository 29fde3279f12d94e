"""Room on a disk, looked at before work begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nnunetlike.core.errors import ResourceError
from nnunetlike.core.resources import disk_space, in_words


def require_space(
    folder: Path, needed_bytes: float, purpose: str, remedy: str | Callable[[], str]
) -> None:
    """Do nothing if the disk of `folder` has room.

    Args:
        folder: where files will be written; it need not exist.
        needed_bytes: what they will take.
        purpose: what needs the room, to begin the message with.
        remedy: what to do beside freeing space, an order without full stop; or what finds it out.

    Raises:
        ResourceError: it has too little; says what is needed, what is free and what to do.
    """
    free = disk_space(folder).free
    if needed_bytes > free:
        raise ResourceError(
            f"{purpose} needs about {in_words(needed_bytes)}, but the disk of {folder} has only "
            f"{in_words(free)} free. Nothing was written. Free some space (nnUNet_clean removes "
            f"what can be made again), or {remedy if isinstance(remedy, str) else remedy()}"
        )
