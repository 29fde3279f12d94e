from __future__ import annotations

import re
from pathlib import Path

import pytest

from nnunetlike.core import environment
from nnunetlike.run import env

ROOT = Path(env.__file__).parents[1]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    assert env.main([]) == 0
    return capsys.readouterr().out


def test_every_folder_comes_with_its_variable_its_state_and_its_room(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "preprocessed").mkdir()
    out = said(capsys)
    assert f"raw data: {home}/raw/nnUNet_raw_data" in out
    assert f"from nnUNet_raw_data_base='{home}/raw'" in out
    assert re.search(r"preprocessed data: .+\n.+\n +exists, writable; [\d.]+ \w+ of .+ free", out)
    assert "does not exist, is made when needed; " in out


def test_without_variables_it_says_how_to_set_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in environment.HOMES:
        monkeypatch.delenv(folder.v1, raising=False)
        monkeypatch.delenv(folder.v2, raising=False)
    out = said(capsys)
    assert "raw data: not set; export nnUNet_raw_data_base=/path/to/folder (or nnUNet_raw" in out
    assert "preprocessed data: not set; export nnUNet_preprocessed=/path/to/folder\n" in out


def test_a_variable_that_is_not_looked_at_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("nnUNet_raw", "/elsewhere")
    monkeypatch.setenv("nnUNet_keep_files_open", "f")
    monkeypatch.setenv("nnUNet_def_n_proc", "3")
    out = said(capsys)
    assert "nnUNet_raw='/elsewhere' is not looked at, since nnUNet_raw_data_base is set" in out
    assert "nnUNet_keep_files_open='f' is set, but nothing here reads it" in out
    assert "nnUNet_def_n_proc='3'" in out


def test_a_file_in_place_of_a_folder_and_an_unknown_user_are_told(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "preprocessed").write_text("")
    monkeypatch.setenv("RESULTS_FOLDER", "~no_such_user_here")
    out = said(capsys)
    assert "exists, but is NO readable folder" in out
    assert "trained models: the environment variable RESULTS_FOLDER is '~no_such_user_here'" in out


def test_machine_and_libraries_are_listed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = said(capsys)
    for part in ("cores: ", "memory: ", "training computes on", "torch 2.", "numpy ", "python 3."):
        assert part in out, part


def test_every_variable_that_the_package_reads_is_listed() -> None:
    pattern = re.compile(r'^\w*VARIABLE = "(\w+)"', re.MULTILINE)
    read = {name for path in ROOT.rglob("*.py") for name in pattern.findall(path.read_text())}
    assert read and read <= set(env.TUNING)
