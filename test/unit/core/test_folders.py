from __future__ import annotations

from pathlib import Path

import pytest

from nnunetlike.core.folders import atomic_folder, visible_files


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    with atomic_folder(tmp_path / "x") as folder:
        (folder / "new").touch()
        assert (tmp_path / "x" / "old").exists()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "old").touch()
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "x") as folder:
        (folder / "absent").unlink()
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_hidden_files_folders_and_other_suffixes_are_not_listed(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nii.gz", "._a.nii.gz", ".DS_Store", "a.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.nii.gz").mkdir()
    assert [p.name for p in visible_files(tmp_path, ".nii.gz")] == ["a.nii.gz", "b.nii.gz"]
