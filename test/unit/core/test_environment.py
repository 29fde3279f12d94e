from __future__ import annotations

import logging
from pathlib import Path

import pytest

from nnunetlike.core import environment, paths
from nnunetlike.core.errors import UsageError


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for home in environment.HOMES:
        monkeypatch.delenv(home.v1, raising=False)
        monkeypatch.delenv(home.v2, raising=False)
    environment._warn_of_difference.cache_clear()


@pytest.mark.parametrize("home", environment.HOMES)
def test_a_missing_folder_names_both_spellings_and_the_command_that_sets_it(
    home: environment.Home,
) -> None:
    with pytest.raises(UsageError, match=f"export {home.v1}=") as raised:
        home.setting()
    assert home.v2 in str(raised.value) and "nnUNet_env" in str(raised.value)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("text", ["~/data", "'~/data'", '"~/data"', " ~/data ", '" ~/data"'])
def test_quotes_blanks_and_tilde_are_understood(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", text)
    assert paths.preprocessed() == Path.home() / "data"


def test_the_tilde_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", "~no_such_user_here/x")
    with pytest.raises(UsageError, match=r"nnUNet_raw is '~no_such_user_here/x'"):
        paths.raw_data()


@pytest.mark.parametrize("empty", ["", "  ", "''"])
def test_an_empty_value_counts_as_not_set(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    monkeypatch.setenv("RESULTS_FOLDER", empty)
    monkeypatch.setenv("nnUNet_results", "/models")
    assert paths.results() == Path("/models/nnUNet")


def test_the_raw_folder_of_v2_holds_the_tasks_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_raw", "/data/raw")
    monkeypatch.setenv("nnUNet_preprocessed", "/data/preprocessed")
    assert paths.raw_data() == Path("/data/raw")
    assert paths.cropped_data() == Path("/data/preprocessed/nnUNet_cropped_data")


def test_v1_wins_where_both_are_set_and_a_difference_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("nnUNet_raw_data_base", "/one")
    monkeypatch.setenv("nnUNet_raw", "/two")
    with caplog.at_level(logging.WARNING, "nnunetlike"):
        assert paths.raw_data() == paths.raw_data() == Path("/one/nnUNet_raw_data")
        assert paths.cropped_data() == Path("/one/nnUNet_cropped_data")
    (record,) = caplog.records
    assert "/one/nnUNet_raw_data, /two" in record.getMessage()
    assert "nnUNet_raw_data_base is used" in record.getMessage()


def test_two_spellings_of_one_folder_are_no_difference(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("nnUNet_raw_data_base", "/one")
    monkeypatch.setenv("nnUNet_raw", "/one/nnUNet_raw_data")
    monkeypatch.setenv("RESULTS_FOLDER", "/models")
    monkeypatch.setenv("nnUNet_results", "/models")
    assert paths.raw_data() == Path("/one/nnUNet_raw_data")
    assert paths.results() == Path("/models/nnUNet")
    assert not caplog.records
