"""What made each preprocessed case, so that a next run makes only what is missing, old or broken.

Beside every folder of preprocessed cases lies `FOLDER.jsonl` with one line per case, added when
the case is finished. It tells a hash of the part of the plans that decides, the cropped case it was
made from, and its files. Contents are known by their size and a checksum: that which a zip archive
lists, of other arrays one of parts all over the file. So copied folders stay valid and no array has
to be read through to see that it is whole.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetlike.core.intact import UNREADABLE, damage
from nnunetlike.core.serialization import write_text
from nnunetlike.data.store import ARRAY_SUFFIXES, SUFFIXES, CaseStore

NEW = ""
"""The reason to make a case that was not there."""

PARTS, PART_BYTES = 16, 2**16
"""How many parts of an array without checksum are looked at, and how long each is."""

Mark = list[int | str]


@dataclass(frozen=True)
class Journal:
    """The record of one folder of preprocessed cases.

    Args:
        source: cropped cases.
        target: preprocessed cases.
        recipe: hash of what the plans ask for.
    """

    source: CaseStore
    target: CaseStore
    recipe: str

    @property
    def path(self) -> Path:
        """The file."""
        return self.target.folder.with_name(f"{self.target.folder.name}.jsonl")

    def add(self, case_id: str) -> None:
        """Note that a case was made, in one write, so several processes may do so."""
        line = json.dumps({"case": case_id, **self._entry(case_id)}) + "\n"
        try:
            with self.path.open("ab", buffering=0) as stream:
                stream.write(line.encode())
        except OSError as error:  # name the file, which a failed write does not
            error.filename = str(self.path)
            raise

    def to_make(self, case_ids: Sequence[str]) -> dict[str, str]:
        """Return the cases to make, each with the reason; `NEW` where there was none.

        The journal is shortened to the cases that stand.
        """
        known = self._read()
        reasons = {case: self._reason(case, known.get(case)) for case in case_ids}
        stand = {case: known[case] for case, reason in reasons.items() if reason is None}
        text = "".join(json.dumps({"case": case, **entry}) + "\n" for case, entry in stand.items())
        if text != self._text():
            write_text(self.path, text)
        return {case: reason for case, reason in reasons.items() if reason is not None}

    def _read(self) -> dict[str, dict[str, Any]]:
        """Return the last entry of each case; a line that was cut off does not count."""
        found = {}
        for line in self._text().splitlines():
            try:
                entry = json.loads(line)
                found[str(entry.pop("case"))] = entry
            except (ValueError, KeyError, AttributeError):
                continue
        return found

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def _reason(self, case_id: str, entry: Mapping[str, Any] | None) -> str | None:
        """Return why a case is made, or None if it stands as it is."""
        packed, properties = _files(self.target, case_id)
        if entry is None:
            there = packed.is_file() and properties.is_file()
            return "it is not known what made it" if there else NEW
        for path in (packed, properties):
            if not path.is_file():
                return f"{path.name} is missing"
        if entry.get("recipe") != self.recipe:
            return "the plans have changed"
        if entry.get("source") != _marks(self.source, case_id):
            return "the cropped case has changed"
        if entry.get("files") == _marks(self.target, case_id):
            form, asked = self.target.form_of(case_id), self.target.form
            return None if form == asked else f"it is stored as {form}, not {asked}"
        found = next((f"{p.name} {d}" for p in (packed, properties) if (d := damage(p))), None)
        return found or "its files were changed"

    def _entry(self, case_id: str) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "source": _marks(self.source, case_id),
            "files": _marks(self.target, case_id),
        }


def remove_leftovers(store: CaseStore, case_ids: Iterable[str]) -> None:
    """Delete temporary files that a killed process left of these cases."""
    names = {f"{case_id}{suffix}" for case_id in case_ids for suffix in (*ARRAY_SUFFIXES, ".pkl")}
    for path in store.folder.glob(".tmp-*"):
        if path.name.split("-", 2)[-1] in names:
            path.unlink(missing_ok=True)


def _files(store: CaseStore, case_id: str) -> tuple[Path, Path]:
    expected = store.folder / f"{case_id}{SUFFIXES[store.form]}"
    return store.array_file(case_id) or expected, store.folder / f"{case_id}.pkl"


def _marks(store: CaseStore, case_id: str) -> list[Mark]:
    """Return size and checksum of both files of a case; no checksum of what is damaged."""
    packed, properties = _files(store, case_id)
    return [
        [_size(packed), *_checksums(packed)],
        [_size(properties), _digest(properties)],
    ]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _checksums(path: Path) -> list[int]:
    if path.suffix != ".npz":
        return [_sampled_checksum(path)] if path.is_file() else []
    try:
        with zipfile.ZipFile(path) as archive:
            return [member.CRC for member in archive.infolist()]
    except UNREADABLE:
        return []


def _sampled_checksum(path: Path) -> int:
    """Return a checksum of parts at equal distances, the first and the last bytes among them."""
    last = max(0, path.stat().st_size - PART_BYTES)
    found = 0
    with path.open("rb") as stream:
        for part in range(PARTS):
            stream.seek(last * part // (PARTS - 1))
            found = zlib.crc32(stream.read(PART_BYTES), found)
    return found


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError:
        return ""
