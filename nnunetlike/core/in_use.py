"""Who works in a folder: commands hold a lock on it that ends with their process, however it ends.

The lock is the kernel's (`flock`) on the folder itself, so nothing is written. Where a file system
or Windows has no such locks, nobody is seen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetlike.core.errors import UsageError


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """Mark an existing folder as in use by this command; several commands may use it at a time."""
    descriptor = _locked(folder, shared=True)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


@contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Hold an existing folder that no command uses; tell whether users could have been seen.

    Raises:
        UsageError: a training or another command uses it.
    """
    try:
        descriptor = _locked(folder, shared=False)
    except BlockingIOError:
        raise UsageError(
            f"{folder} is in use by a training or another command. Wait until it has ended"
        ) from None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _locked(folder: Path, *, shared: bool) -> int | None:
    """Return a descriptor that holds the lock, or None where there are no locks.

    Raises:
        BlockingIOError: another process holds a lock that excludes this one.
    """
    if sys.platform == "win32":
        return None
    import fcntl  # which Windows lacks

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        if shared:
            return None  # nnUNet_clean is at work, for a moment
        raise
    except OSError:  # a network disk without locks
        os.close(descriptor)
        return None
    return descriptor
