"""Films through PyAV, and without it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.data.films import read_film, write_film


def test_without_pyav_the_message_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError) as error:
        read_film(tmp_path / "x.avi")
    assert str(error.value) == (
        "reading films needs PyAV, which is not installed here. Install it with: "
        'pip install "nnunetlike[video]"'
    )


def test_a_film_that_was_written_is_read_again(tmp_path: Path) -> None:
    pytest.importorskip("av")
    frames = np.zeros((7, 33, 48, 3), np.uint8)
    frames[3:, 8:24, 8:24] = 200
    write_film(frames, tmp_path / "x.mp4", 25.0)
    found = read_film(tmp_path / "x.mp4")
    assert found.shape == (7, 32, 48)
    assert found[2].max() < 30
    assert abs(int(found[4, 16, 16]) - 200) < 10
    assert [path.name for path in tmp_path.iterdir()] == ["x.mp4"]


def test_a_file_that_is_no_film_is_an_error_that_names_it(tmp_path: Path) -> None:
    pytest.importorskip("av")
    (tmp_path / "x.avi").write_bytes(b"RIFF" + bytes(200))
    with pytest.raises(DataError, match=r"x\.avi cannot be decoded \(.+\)\. Copy or download"):
        read_film(tmp_path / "x.avi")
