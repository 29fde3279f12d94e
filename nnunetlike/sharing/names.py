"""Names of files in a zip that was made by a stranger: which of them may be written, and why not.

The rules hold on every system, so a zip is good everywhere or nowhere: what only Windows takes for
an absolute path, or only macOS for the same name, is refused here too.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

LONGEST = 200
"""Bytes of one component; file systems take 255, and a temporary name needs some."""

DEVICES = frozenset(
    {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
)
"""Names that Windows takes for devices, whatever their suffix."""


def fault_of_name(name: str) -> str | None:
    """Return what is wrong with the path of an entry of a zip, or None.

    Args:
        name: as the zip has it; folders end in `/`.
    """
    faults = (
        (not name, "has no name"),
        (any(unicodedata.category(c)[0] == "C" for c in name), "has control characters in it"),
        ("\\" in name, "has a backslash in it"),
        (name.startswith("/"), "is an absolute path"),
        (":" in name, "has a drive letter or colon in it"),
    )
    for is_so, fault in faults:
        if is_so:
            return fault
    return _fault_of_parts(name.removesuffix("/").split("/"))


def _fault_of_parts(parts: list[str]) -> str | None:
    for part in parts:
        if part == "..":
            return "leads out of the folder (..)"
        if part in ("", "."):
            return "has an empty component"
        if part[-1] in " ." or part[0] in " .":
            return "has a component that begins or ends with a dot or a space"
        if part.split(".")[0].lower() in DEVICES:
            return f"has the component {part!r}, a device of Windows"
        if len(part.encode("utf-8")) > LONGEST:
            return f"has a component of more than {LONGEST} bytes"
    return None


def fault_of_all(names: Iterable[str]) -> str | None:
    """Return what is wrong with the paths of files together, or None.

    Names that differ in case or in how letters are composed are one file on some systems. A file
    may not be where another's folder is.

    Args:
        names: of the files, without folders; each good by itself.
    """
    seen: dict[str, str] = {}
    for name in names:
        key = _key(name)
        if key in seen:
            same = "is there twice" if seen[key] == name else f"is {seen[key]!r} on some systems"
            return f"{name!r} {same}"
        seen[key] = name
    for key, name in seen.items():
        parts = key.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above in seen:
                return f"{seen[above]!r} is a file where {name!r} needs a folder"
    return _fault_of_folders(seen.values())


def _fault_of_folders(names: Iterable[str]) -> str | None:
    folders: dict[str, str] = {}
    for name in names:
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folders.setdefault(_key(folder), folder) != folder:
                return f"the folder {folder!r} is {folders[_key(folder)]!r} on some systems"
    return None


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
