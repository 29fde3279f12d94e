"""Whole and broken files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetlike.core.intact import damage, unpacked_size
from nnunetlike.core.serialization import save_pickle

CONTENT = np.random.default_rng(0).integers(0, 3, 40_000).astype(np.uint8)


@pytest.fixture(params=["x.nii.gz", "x.npz", "x.npy", "x.pkl"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(CONTENT.tobytes()))
    elif path.suffix == ".npz":
        np.savez_compressed(path, data=CONTENT)
    elif path.suffix == ".npy":
        np.save(path, CONTENT)
    else:
        save_pickle({"data": CONTENT}, path)
    return path


def test_whole_files_have_no_damage(file: Path) -> None:
    assert damage(file) is None


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_truncated_files_are_noticed(file: Path, share: float) -> None:
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    assert damage(file) == "is truncated or damaged"


def test_flipped_bits_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    content = bytearray(gzip.compress(CONTENT.tobytes()))
    content[len(content) // 2] ^= 255
    path.write_bytes(bytes(content))
    assert damage(path) == "is truncated or damaged"


def test_missing_and_empty_files_are_told_apart(tmp_path: Path) -> None:
    assert damage(tmp_path / "x.nii") == "is missing"
    (tmp_path / "x.nii").touch()
    assert damage(tmp_path / "x.nii") == "is empty"


def test_the_size_unpacked_is_known_without_unpacking(file: Path) -> None:
    assert unpacked_size(file) == pytest.approx(len(CONTENT), abs=600)


@pytest.mark.parametrize("name", ["x.png", "x.JPG"])
def test_the_size_of_a_picture_is_that_of_its_pixels(tmp_path: Path, name: str) -> None:
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(tmp_path / name)
    assert (tmp_path / name).stat().st_size < 10_000
    assert unpacked_size(tmp_path / name) == 300 * 400 * 3
    (tmp_path / name).write_bytes(b"0123456789")
    assert unpacked_size(tmp_path / name) == 10


def test_the_size_of_what_cannot_be_read_is_no_error(tmp_path: Path) -> None:
    assert unpacked_size(tmp_path / "nowhere.nii.gz") == 0
    broken = tmp_path / "x.npz"
    broken.write_bytes(b"0123456789")
    assert unpacked_size(broken) == 10
