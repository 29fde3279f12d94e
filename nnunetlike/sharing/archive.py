"""A zip that a stranger made: looked at as a whole, then unpacked within limits.

Names, kinds, sizes and the manifest are judged from the directory of the zip before anything is
written. Unpacking writes plain files under names that were judged, never more bytes than announced.

Source of what zip files may hold: PKWARE, ".ZIP File Format Specification" (APPNOTE) 6.3.10. Of
bombs whose entries overlap: D. Fifield, "A better zip bomb", USENIX WOOT 2019.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nnunetlike.core.errors import DataError
from nnunetlike.core.resources import in_words
from nnunetlike.sharing.layout import MANIFEST, place_of
from nnunetlike.sharing.manifest import CHUNK, MOST_BYTES, FileFacts, Manifest
from nnunetlike.sharing.names import fault_of_all, fault_of_name

MIB = 2**20
GIB = 2**30
ENCRYPTED = 0x1
END, END_64, LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
END_SIZE, END_64_SIZE, LOCATOR_64_SIZE = 22, 56, 20
LONGEST_COMMENT = 2**16
UNIX_FIELD = 0x000D
"""Extra field that may hold the target of a link."""

UNIX_FIELD_SIZE = 12
"""Bytes of that field without a target."""

BROKEN = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError,
    struct.error,
)  # fmt: skip
"""What the reader raises for zips that are none, encrypted, truncated or damaged."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a zip may ask of this machine."""

    max_bytes: float = 32 * GIB
    """Of all files unpacked."""

    max_ratio: float = 100
    """Of unpacked to packed bytes, of any file over 1 MiB. Weights have 1.1."""

    max_entries: int = 10_000

    max_directory: int = 8 * MIB
    """Bytes of the zip's own list of files."""


@dataclass(frozen=True, kw_only=True)
class ModelArchive:
    """A zip whose names, kinds and sizes are good; what the files hold is not known yet."""

    path: Path
    members: Mapping[str, zipfile.ZipInfo]
    """The files, without folders and the manifest, by path."""

    manifest: Manifest | None
    """None: a zip of v1."""

    archive: zipfile.ZipFile

    @property
    def size(self) -> int:
        """Bytes of all files unpacked."""
        return sum(info.file_size for info in self.members.values())

    def unpack(self, folder: Path) -> dict[str, FileFacts]:
        """Write all files below an empty folder; return what they are.

        Raises:
            DataError: a file is not what the directory of the zip or the manifest says.
        """
        facts = {}
        for name, info in self.members.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            facts[name] = self._unpack_one(info, target)
            if self.manifest is not None:
                self._compare(name, facts[name], self.manifest.files[name])
        return facts

    def _unpack_one(self, info: zipfile.ZipInfo, target: Path) -> FileFacts:
        digest, size = hashlib.sha256(), 0
        try:
            with self.archive.open(info) as source, target.open("xb") as sink:
                while chunk := source.read(CHUNK):
                    digest.update(chunk)
                    sink.write(chunk)
                    size += len(chunk)
        except BROKEN as error:
            raise refused(self.path, f"{info.filename!r} cannot be unpacked ({error})") from None
        if size != info.file_size:
            raise refused(
                self.path, f"{info.filename!r} has {size} bytes, {info.file_size} are announced"
            )
        return FileFacts(size, digest.hexdigest())

    def _compare(self, name: str, found: FileFacts, said: FileFacts) -> None:
        if found != said:
            raise refused(
                self.path,
                f"{name!r} has the SHA-256 {found.sha256[:16]}…, the manifest says "
                f"{said.sha256[:16]}…; it was changed or damaged after the export",
            )


def refused(archive: Path, reason: str) -> DataError:
    """Return the error that a zip ends with."""
    return DataError(f"{archive}: refused, nothing was installed: {reason}")


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[ModelArchive]:
    """Yield a zip after its names, kinds, sizes and manifest were found good.

    Raises:
        DataError: they are not, or it is no zip; the message names the entry.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file. Give the path of a zip with a trained model")
    _check_directory_size(path, limits)
    try:
        archive = zipfile.ZipFile(path)
    except (*BROKEN, OSError) as error:
        raise refused(path, f"it is no zip file, or one cut short ({error})") from None
    with archive:
        infos = archive.infolist()
        _check_entries(path, infos, limits)
        files = {info.filename: info for info in infos if not info.is_dir()}
        manifest = _manifest(path, archive, files.pop(MANIFEST, None))
        _check_layout(path, files)
        if manifest is not None:
            _check_against(path, files, manifest)
        yield ModelArchive(path=path, members=files, manifest=manifest, archive=archive)


def _check_directory_size(path: Path, limits: Limits) -> None:
    """Refuse a zip whose directory, which Python reads as a whole, is too large."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - END_SIZE - LONGEST_COMMENT - LOCATOR_64_SIZE - END_64_SIZE))
        tail = stream.read()
    end = tail.rfind(END)
    if end < 0 or len(tail) - end < END_SIZE:
        raise refused(path, "it is no zip file, or one cut short (it has no directory at its end)")
    (length,) = struct.unpack_from("<I", tail, end + 12)
    locator, end_64 = end - LOCATOR_64_SIZE, end - LOCATOR_64_SIZE - END_64_SIZE
    if end_64 >= 0 and tail.startswith(LOCATOR_64, locator) and tail.startswith(END_64, end_64):
        (length,) = struct.unpack_from("<Q", tail, end_64 + 40)
    if length > limits.max_directory:
        raise refused(
            path,
            f"it has too many entries: their list alone takes {in_words(length)}, at most "
            f"{in_words(limits.max_directory)} are read",
        )


def _check_entries(path: Path, infos: list[zipfile.ZipInfo], limits: Limits) -> None:
    if len(infos) > limits.max_entries:
        raise refused(path, f"it has too many entries: {len(infos)}, at most {limits.max_entries}")
    for info in infos:
        fault = fault_of_name(info.orig_filename) or _fault_of_kind(info)
        fault = fault or _fault_of_size(info, limits)
        if fault is not None:
            raise refused(path, f"the entry {info.orig_filename!r} {fault}")
    together = fault_of_all(i.filename.removesuffix("/") for i in infos if not i.is_dir())
    if together is not None:
        raise refused(path, together)
    _check_total(path, infos, limits)


def _check_total(path: Path, infos: list[zipfile.ZipInfo], limits: Limits) -> None:
    total = sum(info.file_size for info in infos)
    if total > limits.max_bytes:
        raise refused(
            path,
            f"unpacked it takes {in_words(total)}, more than {in_words(limits.max_bytes)}. If you "
            "trust it, raise the limit with --max_size",
        )
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise refused(path, "its entries overlap, as those of a compression bomb do")


def _fault_of_kind(info: zipfile.ZipInfo) -> str | None:
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a symbolic link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a special file (device, pipe or socket)"
    if _has_link_target(info.extra):
        return "is a hard link"
    if info.flag_bits & ENCRYPTED:
        return "is encrypted. Unpack and pack it again without a password"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is compressed by method {info.compress_type}; use deflate"
    if info.is_dir() and info.file_size:
        return "is a folder that holds bytes"
    return None


def _has_link_target(extra: bytes) -> bool:
    """Tell whether the extra fields of an entry make it a link."""
    position = 0
    while position + 4 <= len(extra):
        number, length = struct.unpack_from("<HH", extra, position)
        if number == UNIX_FIELD and length > UNIX_FIELD_SIZE:
            return True
        position += 4 + length
    return False


def _fault_of_size(info: zipfile.ZipInfo, limits: Limits) -> str | None:
    ratio = info.file_size / max(1, info.compress_size)
    if info.file_size > MIB and ratio > limits.max_ratio:
        return (
            f"is {ratio:.0f} times as large unpacked ({in_words(info.file_size)}), as compression "
            f"bombs are; at most {limits.max_ratio:g} times are taken. If you trust it, raise the "
            "limit with --max_ratio"
        )
    return None


def _manifest(
    path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo | None
) -> Manifest | None:
    if info is None:
        return None
    if info.file_size > MOST_BYTES:
        raise refused(
            path, f"its manifest has {in_words(info.file_size)}, at most {in_words(MOST_BYTES)}"
        )
    try:
        return Manifest.from_json(archive.read(info))
    except DataError as error:
        raise refused(path, str(error)) from None
    except BROKEN as error:
        raise refused(path, f"its manifest cannot be unpacked ({error})") from None


def _check_layout(path: Path, files: Mapping[str, zipfile.ZipInfo]) -> None:
    for name in files:
        if place_of(name) is None:
            raise refused(
                path,
                f"{name!r} is none of a model's files, which are CONFIGURATION/TASK/TRAINER__PLANS/"
                "plans.pkl, fold_0/model_final_checkpoint.model and the like",
            )
    if not files:
        raise refused(path, "it holds no files")


def _check_against(path: Path, files: Mapping[str, zipfile.ZipInfo], manifest: Manifest) -> None:
    missing = sorted(set(manifest.files) - set(files))
    extra = sorted(set(files) - set(manifest.files))
    if missing:
        raise refused(path, f"the manifest lists {missing[0]!r}, which is missing")
    if extra:
        raise refused(path, f"{extra[0]!r} is not in the manifest")
    for name, info in files.items():
        said = manifest.files[name].size
        if info.file_size != said:
            raise refused(path, f"{name!r} has {info.file_size} bytes, the manifest says {said}")
