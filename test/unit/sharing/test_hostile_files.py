"""Zips of strangers who mean harm: each is refused by name, executes nothing, leaves nothing."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nnunetlike.core.errors import DataError
from nnunetlike.run.install_pretrained_model_from_zip import main
from nnunetlike.sharing.archive import Limits
from nnunetlike.sharing.install import install_archive
from nnunetlike.sharing.layout import MANIFEST

PLACE = "3d_fullres/Task901_Tiny/nnUNetTrainerV2__nnUNetPlansv2.1"
MODEL = f"{PLACE}/fold_0/model_final_checkpoint.model"
Entries = list[tuple[zipfile.ZipInfo, bytes]]


class Executes:
    """A pickle of this makes a file when it is read by a careless reader."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"{sys.executable} -c \"open('executed', 'w')\"",)


@dataclass
class Draft:
    """A good zip to spoil."""

    entries: dict[str, bytes]
    manifest: dict[str, Any]
    extra: Entries = field(default_factory=list)

    def write(self, path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in self.entries.items():
                archive.writestr(name, content, zipfile.ZIP_DEFLATED)
            for info, content in self.extra:
                archive.writestr(info, content)
            if self.manifest:
                archive.writestr(MANIFEST, json.dumps(self.manifest))

    def put(self, name: str, content: bytes) -> None:
        """Add a file as an honest exporter would, with size and hash."""
        self.entries[name] = content
        facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.manifest["files"][name] = facts

    def add(self, name: str, content: bytes = b"x", mode: int = 0o100644, **more: Any) -> None:
        """Add an entry of any kind."""
        info = zipfile.ZipInfo("x")
        info.filename = name
        info.external_attr = mode << 16
        for key, value in more.items():
            setattr(info, key, value)
        self.extra.append((info, content))


@pytest.fixture
def draft(make_model: Callable[..., Path], tmp_path: Path) -> Draft:
    source = tmp_path / "source"
    make_model(source)
    files = [path for path in source.rglob("*") if path.is_file()]
    good = Draft({}, {
        "format_version": 1, "nnunetlike_version": "1", "task": "Task901_Tiny", "models": [],
        "licence": None, "licence_text": None, "files": {},
    })  # fmt: skip
    for path in files:
        good.put(path.relative_to(source).as_posix(), path.read_bytes())
    return good


def test_the_hostile_pickle_does_harm_where_readers_are_careless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Executes()))
    assert (tmp_path / "executed").is_file()


def torch_bytes(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def deflated_zip(size: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(size))
    return stream.getvalue()


def set_manifest(key: str, value: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.manifest.__setitem__(key, value)


def says(name: str, **facts: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.manifest["files"][name].update(facts)


def lists(name: str) -> Callable[[Draft], None]:
    facts = {"size": 1, "sha256": "0" * 64}
    return lambda draft: draft.manifest["files"].__setitem__(name, facts)


def entry(name: str, content: bytes = b"x", **more: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.add(name, content, **more)


def content(name: str, content: bytes) -> Callable[[Draft], None]:
    return lambda draft: draft.put(name, content)


def without(name: str) -> Callable[[Draft], None]:
    def spoil(draft: Draft) -> None:
        del draft.entries[name], draft.manifest["files"][name]

    return spoil


def many(draft: Draft) -> None:
    for number in range(10_001):
        draft.add(f"{PLACE}/fold_0/{number}.txt", b"")


LINK_TARGET = struct.pack("<HH", 0x000D, 12 + 11) + bytes(12) + b"/etc/passwd"

SPOILT: dict[str, tuple[Callable[[Draft], None], str]] = {
    # names
    "parent": (entry("../../outside.txt"), "leads out of the folder"),
    "parent_inside": (entry(f"{PLACE}/../../../../o.json"), "leads out of the folder"),
    "absolute": (entry("/tmp/outside.json"), "is an absolute path"),
    "drive": (entry("C:/outside.json"), "has a drive letter"),
    "backslash": (entry("..\\outside.json"), "has a backslash"),
    "control": (entry(f"{PLACE}/a\nb.json"), "has control characters"),
    "bidirectional": (entry(f"{PLACE}/fold_0/nosj\u202e.json"), "has control characters"),
    "hidden": (entry(".bashrc"), "begins or ends with a dot"),
    "device": (entry(f"{PLACE}/NUL.json"), "a device of Windows"),
    "case": (entry(f"{PLACE}/PLANS.PKL"), "on some systems"),
    "case_of_folder": (entry(f"{PLACE.upper()}/x.json"), "on some systems"),
    "file_as_folder": (entry(f"{PLACE}/plans.pkl/x.json"), "needs a folder"),
    "other_place": (entry("nnUNet_raw_data/x/y/plans.pkl"), "is none of a model's files"),
    "script": (entry(f"{PLACE}/fold_0/run.py"), "is none of a model's files"),
    "library": (entry(f"{PLACE}/fold_0/x.so"), "is none of a model's files"),
    "nested_zip": (entry(f"{PLACE}/fold_0/more.zip"), "is none of a model's files"),
    # kinds
    "symlink": (entry(f"{PLACE}/x.json", b"/etc/passwd", mode=0o120777), "is a symbolic link"),
    "symlink_folder": (entry("3d_fullres", b"/tmp", mode=0o120777), "is a symbolic link"),
    "pipe": (entry(f"{PLACE}/x.json", mode=0o010644), "is a special file"),
    "device_file": (entry(f"{PLACE}/x.json", mode=0o060644), "is a special file"),
    "hard_link": (entry(f"{PLACE}/x.json", extra=LINK_TARGET), "is a hard link"),
    "other_method": (
        entry(f"{PLACE}/x.json", compress_type=zipfile.ZIP_LZMA),
        "is compressed by method 14",
    ),
    # sizes
    "many": (many, "too many entries"),
    "bomb": (
        content(f"{PLACE}/fold_0/debug.json", bytes(4 * 2**20)),
        "times as large unpacked (4.0 MiB), as compression bombs are",
    ),
    "bomb_in_checkpoint": (content(MODEL, deflated_zip(4 * 2**20)), "is a compression bomb"),
    # manifest
    "wrong_hash": (says(MODEL, sha256="0" * 64), "the manifest says 0000000000000000"),
    "wrong_size": (says(MODEL, size=7), "the manifest says 7"),
    "missing": (lists(f"{PLACE}/fold_1/{MODEL[-28:]}"), "which is missing"),
    "extra": (entry(f"{PLACE}/x.json"), "is not in the manifest"),
    "outside_in_manifest": (lists("../../x.pkl"), "lists '../../x.pkl', which leads out"),
    "absolute_in_manifest": (lists("/etc/x.pkl"), "which is an absolute path"),
    "negative_size": (says(MODEL, size=-1), "size or SHA-256"),
    "no_hash": (says(MODEL, sha256="no"), "size or SHA-256"),
    "later_version": (set_manifest("format_version", 2), "update nnunetlike"),
    "manifest_of_lists": (set_manifest("files", [1]), "its manifest cannot be read"),
    "terminal_codes": (set_manifest("licence", "\x1b[2J"), "its manifest cannot be read"),
    # contents
    "hostile_pickle": (
        content(f"{PLACE}/plans.pkl", pickle.dumps(Executes())),
        "it asks for posix.system",
    ),
    "hostile_info": (
        content(f"{MODEL}.pkl", pickle.dumps(Executes())),
        "it asks for posix.system",
    ),
    "hostile_checkpoint": (
        content(MODEL, torch_bytes({"epoch": 1, "state_dict": Executes()})),
        "(it asks for posix.system). It is damaged, or asks to execute code, which is refused",
    ),
    "hostile_legacy_checkpoint": (
        content(MODEL, pickle.dumps(Executes(), 2)),
        "(it asks for posix.system)",
    ),
    "eval_in_pickle": (
        content(f"{PLACE}/plans.pkl", b"cbuiltins\neval\n(S'1'\ntR."),
        "it asks for builtins.eval",
    ),
    "huge_array": (
        content(
            f"{PLACE}/plans.pkl",
            b"cnumpy\nndarray\n((L100000000000000L\nttR.",
        ),
        "plans.pkl",
    ),
    "pickle_is_zip": (content(f"{PLACE}/plans.pkl", deflated_zip(9)), "cannot be read"),
    "json_is_zip": (content(f"{PLACE}/postprocessing.json", deflated_zip(9)), "not valid JSON"),
    "deep_json": (content(f"{PLACE}/fold_0/debug.json", b"[" * 200_000), "depth"),
    "checkpoint_is_zip": (content(MODEL, deflated_zip(9)), "cannot be read as a checkpoint"),
    "checkpoint_is_a_list": (content(MODEL, torch_bytes([1])), "holds a list, where a checkpoint"),
    "picture_is_script": (content(f"{PLACE}/fold_0/progress.png", b"#!/bin/sh"), "it is no PNG"),
    "text_is_program": (content(f"{PLACE}/fold_0/a.txt", b"\x7fELF\0\0"), "is no text"),
    "no_plans": (without(f"{PLACE}/plans.pkl"), "lacks plans.pkl"),
    "no_weights": (without(MODEL), "has no fold with a checkpoint"),
    "no_information": (without(f"{MODEL}.pkl"), "lacks its model_final_checkpoint.model.pkl"),
}  # fmt: skip


@pytest.fixture
def refuse(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path, str], None]:
    """Asserts that the command refuses a zip with these words and leaves nothing anywhere."""
    monkeypatch.chdir(tmp_path)

    def check(path: Path, words: str) -> None:
        before = set(tmp_path.rglob("*"))
        assert main([str(path)]) == 3
        printed = capsys.readouterr()
        assert words in printed.err, printed.err
        assert str(path) in printed.err
        assert "Traceback" not in printed.err
        assert set(tmp_path.rglob("*")) == before
        assert not (home / "results").exists()

    return check


@pytest.mark.parametrize("name", SPOILT)
def test_a_hostile_zip_is_refused_by_name_and_leaves_nothing(
    name: str, draft: Draft, refuse: Callable[[Path, str], None], tmp_path: Path
) -> None:
    spoil, words = SPOILT[name]
    spoil(draft)
    draft.write(tmp_path / "model.zip")
    refuse(tmp_path / "model.zip", words)


MANIFEST_IS_WRONG = {
    "wrong_hash", "wrong_size", "missing", "extra", "outside_in_manifest", "absolute_in_manifest",
    "negative_size", "no_hash", "later_version", "manifest_of_lists", "terminal_codes",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(SPOILT) - MANIFEST_IS_WRONG))
def test_a_hostile_zip_without_manifest_is_refused_too(
    name: str, draft: Draft, refuse: Callable[[Path, str], None], tmp_path: Path
) -> None:
    spoil, words = SPOILT[name]
    spoil(draft)
    draft.manifest = {}
    draft.write(tmp_path / "model.zip")
    refuse(tmp_path / "model.zip", words)


def damaged(path: Path, kind: str) -> None:
    """Spoil the bytes of a good zip."""
    whole = path.read_bytes()
    spoilt: dict[str, bytes] = {
        "empty": b"",
        "no_zip": b"%PDF-1.4 not a zip",
        "cut_short": whole[: len(whole) // 2],
        "cut_at_the_end": whole[:-30],
        "bytes_changed": whole[:200] + bytes(40) + whole[240:],
        "other_name_inside": whole.replace(b"3d_fullres/Task901", b"3d_fullres/Task666", 1),
        "encrypted": _flagged(whole, b"PK\x01\x02", 8),
    }
    path.write_bytes(spoilt[kind])


def _flagged(whole: bytes, signature: bytes, offset: int) -> bytes:
    """Set the bit that says an entry is encrypted."""
    position = whole.index(signature) + offset
    return whole[:position] + b"\x01" + whole[position + 1 :]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", "no zip file"),
        ("no_zip", "no zip file"),
        ("cut_short", "cut short"),
        ("cut_at_the_end", "cut short"),
        ("bytes_changed", "cannot be unpacked"),
        ("other_name_inside", "cannot be unpacked"),
        ("encrypted", "is encrypted"),
    ],
)
def test_a_damaged_zip_is_refused_and_leaves_nothing(
    kind: str, words: str, draft: Draft, refuse: Callable[[Path, str], None], tmp_path: Path
) -> None:
    draft.write(tmp_path / "model.zip")
    damaged(tmp_path / "model.zip", kind)
    refuse(tmp_path / "model.zip", words)


def test_a_name_with_nul_is_not_cut_there(
    draft: Draft, refuse: Callable[[Path, str], None], tmp_path: Path
) -> None:
    draft.add(f"{PLACE}/x.jsonQ.exe")
    draft.write(tmp_path / "model.zip")
    path = tmp_path / "model.zip"
    path.write_bytes(path.read_bytes().replace(b"x.jsonQ.exe", b"x.json\0.exe"))
    refuse(path, "has control characters")


def test_a_manifest_of_any_length_is_not_read(
    draft: Draft, refuse: Callable[[Path, str], None], tmp_path: Path
) -> None:
    draft.manifest["licence_text"] = os.urandom(9 * 2**20).hex()
    draft.write(tmp_path / "model.zip")
    refuse(tmp_path / "model.zip", "its manifest has 18.0 MiB, at most 16.0 MiB")


def test_a_manifest_that_is_no_json_is_refused(
    draft: Draft, refuse: Callable[[Path, str], None], tmp_path: Path
) -> None:
    for text in (b"[" * 100_000, b"no json", b"\xff\xfe", b"[]", b"3"):
        draft.manifest = {}
        draft.entries[MANIFEST] = text
        draft.write(tmp_path / "model.zip")
        refuse(tmp_path / "model.zip", "its manifest cannot be read")


def test_entries_that_share_their_bytes_are_a_bomb(
    draft: Draft, refuse: Callable[[Path, str], None], tmp_path: Path
) -> None:
    path = tmp_path / "model.zip"
    names = [f"{PLACE}/fold_{number}/progress.png" for number in range(9)]
    draft.entries = {name: os.urandom(3000) if name == names[0] else b"" for name in names}
    draft.manifest = {}
    draft.write(path)
    whole = path.read_bytes()
    first = whole.index(b"PK\x01\x02")
    position, copied = first, whole
    while (position := copied.find(b"PK\x01\x02", position)) >= 0:
        sizes = whole[first + 20 : first + 28]
        copied = copied[: position + 20] + sizes + copied[position + 28 :]
        position += 4
    path.write_bytes(copied)
    refuse(path, "as those of a compression bomb do")


def test_a_directory_larger_than_any_model_needs_is_not_read(
    draft: Draft, refuse: Callable[[Path, str], None], tmp_path: Path
) -> None:
    path = tmp_path / "model.zip"
    draft.write(path)
    whole = path.read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    path.write_bytes(whole[: end + 12] + struct.pack("<I", 2**30) + whole[end + 16 :])
    refuse(path, "their list alone takes 1.0 GiB")


def test_a_directory_that_hides_its_size_in_zip64_is_not_read(
    draft: Draft, refuse: Callable[[Path, str], None], tmp_path: Path
) -> None:
    path = tmp_path / "model.zip"
    draft.write(path)
    whole = path.read_bytes()
    end = whole.rindex(b"PK\x05\x06")
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, 2**40, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
    path.write_bytes(whole[:end] + record + locator + whole[end:])
    refuse(path, "their list alone takes 1024.0 GiB")


def test_more_bytes_than_allowed_are_refused_unless_the_limit_is_raised(
    draft: Draft, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.zip"
    draft.write(path)
    assert main([str(path), "--max_size", "0.000001"]) == 3
    assert "raise the limit with --max_size" in capsys.readouterr().err
    assert not results.exists()
    assert main([str(path), "--max_size", "0.01"]) == 0


def test_a_file_that_packs_well_is_taken_when_the_limit_is_raised(
    draft: Draft, results: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.zip"
    draft.put(f"{PLACE}/fold_0/debug.json", b'"' + b" " * 2**21 + b'"')
    draft.write(path)
    assert main([str(path)]) == 3
    assert main([str(path), "--max_ratio", "5000"]) == 0
    assert (results / PLACE / "fold_0" / "debug.json").is_file()


def test_the_limits_are_those_that_help_tells(tmp_path: Path, draft: Draft, results: Path) -> None:
    path = tmp_path / "model.zip"
    draft.write(path)
    few = replace(Limits(), max_entries=3)
    with pytest.raises(DataError, match="too many entries: 5, at most 3"):
        install_archive(path, results, limits=few)


def test_a_file_where_a_models_folder_must_be_is_named(
    draft: Draft, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.zip"
    draft.write(path)
    results.mkdir(parents=True)
    (results / "3d_fullres").write_text("not a folder")
    assert main([str(path)]) == 3
    assert "3d_fullres is a file" in capsys.readouterr().err
    assert [p.name for p in results.iterdir()] == ["3d_fullres"]


def names_of(entries: Iterable[Path]) -> list[str]:
    return sorted(path.name for path in entries)


def test_the_good_zip_that_all_are_made_from_is_taken(
    draft: Draft, results: Path, tmp_path: Path
) -> None:
    draft.write(tmp_path / "model.zip")
    assert main([str(tmp_path / "model.zip")]) == 0
    assert names_of((results / PLACE).iterdir()) == [
        "fold_0", MANIFEST, "plans.pkl", "postprocessing.json",
    ]  # fmt: skip
