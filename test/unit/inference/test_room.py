"""Disk that probabilities take, looked at before predicting."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetlike.core.errors import ResourceError
from nnunetlike.core.resources import Space
from nnunetlike.inference.predict import require_room_for_probabilities
from nnunetlike.plans.plans import Plans


def test_what_probabilities_take_is_told(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "nnunetlike"):
        require_room_for_probabilities(tiny_plans(3), 10, tmp_path / "out")
    bytes_of_all = 10 * 8 * 16 * 16 * 3 * 2
    assert f"10 cases take at most about {bytes_of_all / 1024:.1f} KiB" in caplog.text


def test_a_disk_too_small_for_probabilities_ends_before_predicting(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnunetlike.core.disk.disk_space", lambda path: Space(2**30, 1000))
    with pytest.raises(ResourceError, match="without --save_npz") as raised:
        require_room_for_probabilities(tiny_plans(3), 10, tmp_path)
    assert raised.value.exit_code == 4 and "1000 bytes free" in str(raised.value)
