"""Arrays in a file: written and read by slices, read by class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core import disk
from nnunetlike.core.errors import ResourceError
from nnunetlike.core.resources import Space
from nnunetlike.inference.spill import Spilled

VALUES = np.random.default_rng(0).random((3, 5, 4, 6)).astype(np.float32)


@pytest.fixture
def create(tmp_path: Path) -> Callable[[], Spilled]:
    return lambda: Spilled.create(tmp_path / "sums", VALUES.shape, "averaging", "use less")


def test_what_is_written_in_slabs_is_read_in_slabs_and_by_class(
    create: Callable[[], Spilled],
) -> None:
    spilled = create()
    for begin, stop in ((0, 2), (2, 3), (3, 5)):
        spilled.write(begin, VALUES[:, begin:stop])
    assert np.array_equal(spilled.read(1, 4), VALUES[:, 1:4])
    assert np.array_equal(spilled.channel(2), VALUES[2])
    assert spilled.path.stat().st_size == VALUES.nbytes


def test_a_removed_array_leaves_nothing(create: Callable[[], Spilled], tmp_path: Path) -> None:
    spilled = create()
    spilled.remove()
    spilled.remove()
    assert not list(tmp_path.iterdir())


def test_a_disk_without_room_is_told_with_a_remedy(
    create: Callable[[], Spilled], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(disk, "disk_space", lambda _: Space(total=10, free=VALUES.nbytes - 1))
    with pytest.raises(ResourceError, match=r"averaging needs about .*, or use less"):
        create()
    assert not list(tmp_path.iterdir())
