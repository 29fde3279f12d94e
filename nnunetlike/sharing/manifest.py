"""What a shared zip says of itself: version, models, licence, and size and SHA-256 of each file."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nnunetlike import __version__
from nnunetlike.core.errors import DataError
from nnunetlike.sharing.names import fault_of_name

FORMAT_VERSION = 1
MOST_BYTES = 16 * 2**20
"""Of a manifest; one of twenty models has some thousand."""

CHUNK = 2**20
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class FileFacts:
    """Of one file."""

    size: int
    """In bytes."""

    sha256: str


@dataclass(frozen=True)
class SharedModel:
    """One model of a zip."""

    configuration: str
    name: str
    """`TRAINER__PLANS`."""

    folds: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is said of a zip."""

    task: str
    models: tuple[SharedModel, ...]
    files: Mapping[str, FileFacts]
    """By path within the zip; the manifest itself is left out."""

    licence: str | None = None
    """Name, or first line of the text."""

    licence_text: str | None = None
    nnunetlike_version: str = __version__

    def to_json(self) -> str:
        """Return the text of the file."""
        content = {
            "format": "nnunetlike model",
            "format_version": FORMAT_VERSION,
            "nnunetlike_version": self.nnunetlike_version,
            "task": self.task,
            "models": [asdict(model) for model in self.models],
            "licence": self.licence,
            "licence_text": self.licence_text,
            "files": {name: asdict(self.files[name]) for name in sorted(self.files)},
        }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Return what the file says.

        Raises:
            DataError: it is none, or is of a later version.
        """
        try:
            content = json.loads(text)
            version = content["format_version"]
            if version != FORMAT_VERSION:
                raise DataError(
                    f"its manifest is of version {version!r}, this program reads {FORMAT_VERSION}; "
                    "update nnunetlike"
                )
            return cls(
                task=_text(content["task"]),
                models=_models(content["models"]),
                files=_files(content["files"]),
                licence=_text_or_none(content["licence"]),
                licence_text=_text_or_none(content["licence_text"]),
                nnunetlike_version=_text(content["nnunetlike_version"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"its manifest cannot be read ({reason})") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _text(value: Any) -> str:
    if not isinstance(value, str) or not all(c.isprintable() or c in "\n\t" for c in value):
        raise TypeError(f"{value!r:.60} is not a plain text")
    return value


def _text_or_none(value: Any) -> str | None:
    return None if value is None else _text(value)


def _models(values: Sequence[Mapping[str, Any]]) -> tuple[SharedModel, ...]:
    return tuple(
        SharedModel(
            _text(value["configuration"]),
            _text(value["name"]),
            tuple(_text(fold) for fold in value["folds"]),
        )
        for value in values
    )


def _files(values: Mapping[str, Mapping[str, Any]]) -> dict[str, FileFacts]:
    """Return the facts per file.

    Raises:
        DataError: a path leads out of the folder.
        TypeError, ValueError: size or hash are none.
    """
    files = {}
    for name, facts in values.items():
        fault = fault_of_name(name)
        if fault is not None:
            raise DataError(f"its manifest lists {name!r}, which {fault}")
        size, digest = facts["size"], facts["sha256"]
        if type(size) is not int or size < 0 or not SHA256.fullmatch(digest):
            raise ValueError(f"size or SHA-256 of {name} is none")
        files[name] = FileFacts(size, digest)
    return files
