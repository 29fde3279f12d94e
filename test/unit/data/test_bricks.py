"""Compressed bricks: their shape, what damages them, and life without blosc2."""

from __future__ import annotations

import sys
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.intact import damage, unpacked_size
from nnunetlike.data import bricks
from nnunetlike.data.bricks import BRICK_VOXELS, brick_shape, open_bricks, save_bricks


@pytest.mark.parametrize(
    ("patch", "brick"),
    [
        ((128, 128, 128), (32, 32, 32)),
        ((28, 256, 256), (28, 32, 32)),
        ((512, 512), (1, 128, 256)),
        ((20, 20), (1, 20, 20)),
    ],
)
def test_bricks_have_the_proportions_of_the_patch(
    patch: tuple[int, ...], brick: tuple[int, ...]
) -> None:
    assert brick_shape(patch) == brick


@given(patch=st.lists(st.integers(1, 600), min_size=2, max_size=3))
def test_bricks_are_small_but_not_tiny(patch: list[int]) -> None:
    shape = brick_shape(tuple(patch))
    assert len(shape) == 3
    assert prod(shape) <= BRICK_VOXELS
    assert prod(shape) > BRICK_VOXELS / 4 or prod(shape) == prod(patch)


def test_without_blosc2_the_error_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "blosc2", None)
    assert not bricks.has_blosc2()
    with pytest.raises(UsageError, match=r'pip install "nnunetlike\[blosc2\]"'):
        open_bricks(tmp_path / "x.b2nd")
    with pytest.raises(UsageError, match="writing compressed bricks needs blosc2"):
        save_bricks(tmp_path / "x.b2nd", np.zeros((2, 3, 4, 5), np.float32), (4, 4, 4))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An array (2, 40, 50, 60) of noise, which hardly compresses."""
    pytest.importorskip("blosc2")
    data = np.random.default_rng(0).normal(size=(2, 40, 50, 60)).astype(np.float32)
    save_bricks(tmp_path / "x.b2nd", data, (32, 32, 32))
    return tmp_path / "x.b2nd"


def test_a_patch_touches_only_its_bricks(file: Path) -> None:
    """A second half that cannot be decompressed is not met by a patch that begins the file."""
    patch = (slice(0, 1), slice(0, 16), slice(0, 16), slice(0, 16))
    before = open_bricks(file)[patch]
    content = file.read_bytes()
    half, end = len(content) // 2, 1000  # the file ends with what tells where bricks are
    file.write_bytes(content[:half] + b"\xff" * (len(content) - half - end) + content[-end:])
    assert np.array_equal(open_bricks(file)[patch], before)
    with pytest.raises(DataError, match=r"x\.b2nd cannot be read"):
        open_bricks(file)[:]


@pytest.mark.parametrize("place", [5, 17, 60, 200, -60, -70])
def test_a_damaged_header_or_trailer_is_named(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    part = slice(place, place + 8)
    content[part] = bytes(byte ^ 0xFF for byte in content[part])
    file.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"x\.b2nd cannot be read"):
        open_bricks(file)[:]


@pytest.mark.parametrize("entry", bricks.RECIPES)
def test_a_recipe_for_an_array_is_not_followed(file: Path, entry: bytes) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:100] + entry + content[100 + len(entry) :])
    with pytest.raises(DataError, match="no array but a recipe"):
        open_bricks(file)


def test_what_is_wrong_is_known_without_blosc2(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "blosc2", None)
    assert damage(file) is None
    assert 2 * 40 * 50 * 60 * 4 <= unpacked_size(file) <= 3 * 2 * 40 * 50 * 60 * 4
    file.write_bytes(file.read_bytes()[:-1])
    assert damage(file) == "is truncated or damaged"


def test_no_threads_are_started_for_a_patch(file: Path) -> None:
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        pytest.skip("only Linux tells threads")
    open_bricks(file)[:]
    before = len(list(tasks.iterdir()))
    for _ in range(3):
        open_bricks(file)[:]
    assert len(list(tasks.iterdir())) <= before
