"""What the operating system refused, in words: disk, memory, permission, open files."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from nnunetlike.core.errors import DataError, NnunetlikeError, ResourceError, UsageError

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG})
NO_MEMORY_WORDS = ("out of memory", "can't allocate memory", "cannot allocate memory")
GIB = 2**30


def explained(error: BaseException) -> NnunetlikeError | None:
    """Return an error of the system (disk, memory, permission) in words, or None for any other.

    Returns:
        `ResourceError` for a full disk, too many open files, a failing disk and lack of memory,
        `UsageError` where permission is denied, `DataError` for a file that is not there.
    """
    if isinstance(error, NnunetlikeError):
        return error
    if is_out_of_memory(error):
        return ResourceError(
            f"memory ran out ({_first_line(error)}). Use fewer processes, a smaller batch or "
            "patch, or a machine with more memory"
        )
    return _explained_os_error(error) if isinstance(error, OSError) else None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether the memory of the machine or of a device ran out.

    torch reports the machine's as a RuntimeError with these words, and this module does without
    torch.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    words = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in words for part in NO_MEMORY_WORDS)


def _explained_os_error(error: OSError) -> NnunetlikeError | None:
    where = _where(error)
    if error.errno in NO_SPACE:
        return ResourceError(
            f"the disk is full: {where}{_free_text(error)}. Free some space (nnUNet_clean removes "
            "what can be made again) and run the same command again"
        )
    if error.errno in NO_PERMISSION:
        return UsageError(
            f"permission denied: {where}. Change its permissions, or choose another folder "
            "(nnUNet_env shows which folders are writable)"
        )
    if error.errno == errno.EFBIG:
        return ResourceError(f"the file may not grow further: {where}. Look at ulimit -f")
    if error.errno in TOO_MANY_FILES:
        return ResourceError(
            f"too many open files: {where}. Raise the limit with ulimit -n, or use fewer processes"
        )
    if error.errno == errno.EIO:
        return ResourceError(f"the disk failed to read or write: {where}. Look at its health")
    if error.errno == errno.EAGAIN:
        return ResourceError("no more processes may be started; use fewer of them (ulimit -u)")
    if error.errno in NOT_THERE:
        return DataError(f"{where}: {error.strerror}")
    return None


def _where(error: OSError) -> str:
    name = error.filename2 or error.filename
    return os.fsdecode(name) if isinstance(name, (str, bytes)) else str(error.strerror)


def _free_text(error: OSError) -> str:
    if not isinstance(error.filename, (str, bytes)):
        return ""
    folder = existing_parent(Path(os.fsdecode(error.filename)))
    return f" ({shutil.disk_usage(folder).free / GIB:.2f} GiB free)"


def existing_parent(path: Path) -> Path:
    """Return the path itself or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
