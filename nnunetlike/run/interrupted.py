"""What an interrupted training says: what was kept, and the command that goes on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nnunetlike.core.errors import InterruptedRunError

MODES = frozenset({"c", "continue_training", "val", "validation_only"})
ONLY_AT_FIRST = "pretrained_weights"


def command_that_goes_on(words: Sequence[str], mode: str | None = None) -> str:
    """Return the command line that goes on where one with `words` was interrupted.

    Args:
        words: arguments of nnUNet_train.
        mode: `-c` or `-val`, put in place of what was there; None changes nothing.
    """
    kept: list[str] = []
    drop_value = False
    for word in words:
        name = word.partition("=")[0].lstrip("-").replace("-", "_")
        is_option = word.startswith("-")
        dropped = drop_value or (is_option and name in (*MODES, ONLY_AT_FIRST))
        drop_value = is_option and name == ONLY_AT_FIRST and "=" not in word
        if mode is None or not dropped:
            kept.append(word)
    return shlex.join(["nnUNet_train", *kept, *([mode] if mode else [])])


def has_checkpoint_since(folder: Path, begin: float) -> bool:
    """Tell whether a fold's folder has a checkpoint that was written after `begin`, a time."""
    return any(path.stat().st_mtime >= begin for path in folder.glob("model_*.model"))


@contextmanager
def interruption_explained(said: str, command: Callable[[bool], str]) -> Iterator[None]:
    """Say what was interrupted and how to go on, when the block is.

    Args:
        said: what was interrupted, and what is kept.
        command: gives the command that goes on; told whether a checkpoint was saved at the end.

    Raises:
        InterruptedRunError: the block was interrupted.
    """
    try:
        yield
    except InterruptedRunError as error:
        reason, is_saved = f"{said} by {error}", True
    except KeyboardInterrupt:
        reason, is_saved = said, False
    else:
        return
    raise InterruptedRunError(f"{reason}. Go on with: {command(is_saved)}")
