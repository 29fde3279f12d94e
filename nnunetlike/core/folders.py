"""Folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that replaces it when the block ends without error.

    A block that raises leaves `path` as it was and removes the new folder. The old content is
    deleted only after the new folder has taken its place.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    old = path.with_name(f".old-{os.getpid()}-{path.name}")
    new.mkdir()
    try:
        yield new
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for left in (new, old):
            if left.exists():
                shutil.rmtree(left)


def remove_if_empty(folder: Path) -> None:
    """Remove a folder that is there and holds nothing."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def visible_files(folder: Path, suffix: str) -> list[Path]:
    """Return the files of `folder` that end in `suffix`, sorted by name, without hidden ones.

    Names that begin with a dot (`.DS_Store`, `._case.nii.gz`) are what file managers leave behind.
    """
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.name.endswith(suffix) and not entry.name.startswith(".") and entry.is_file()
    )
