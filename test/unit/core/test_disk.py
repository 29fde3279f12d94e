from __future__ import annotations

from pathlib import Path

import pytest

from nnunetlike.core.disk import require_space
from nnunetlike.core.errors import ResourceError


def test_room_enough_is_no_news(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there", 1000, "planning", "x")
    assert list(tmp_path.iterdir()) == []


def test_lack_of_room_says_need_free_space_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(ResourceError) as raised:
        require_space(tmp_path, 2**60, "Task001_X: preprocessing", "plan fewer configurations")
    said = str(raised.value)
    assert said.startswith("Task001_X: preprocessing needs about 1073741824.0 GiB, but the disk of")
    assert "free. Nothing was written." in said and "or plan fewer configurations" in said
    assert "nnUNet_clean" in said and raised.value.exit_code == 4
