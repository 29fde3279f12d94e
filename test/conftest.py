"""Fixtures shared by all tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden numbers and real data beside the project; tests skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip("the golden numbers and real data (../shared) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Numbers made by running nnU-Net v1."""
    return shared / "golden" / "open"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for the three folders of nnU-Net; returns the folder that holds them."""
    for variable, name in (
        ("nnUNet_raw_data_base", "raw"),
        ("nnUNet_preprocessed", "preprocessed"),
        ("RESULTS_FOLDER", "results"),
    ):
        monkeypatch.setenv(variable, str(tmp_path / name))
    for variable in ("nnUNet_raw", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path
