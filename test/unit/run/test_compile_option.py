"""What options and nnU-Net v2's variable say of compiling."""

from __future__ import annotations

import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.run import predict, run_training
from nnunetlike.run.compile_option import VARIABLE, compile_wish

WORDS = ["3d_fullres", "nnUNetTrainerV2", "4", "0"]


def asked(*options: str) -> str:
    return compile_wish(run_training.build_parser().parse_args([*options, *WORDS]))


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", "on"), ("True", "on"), ("t", "on"), ("0", "off"), ("false", "off"), (" ", "auto")],
)
def test_the_variable_is_read_as_nnunet_v2_reads_it(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: str
) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert asked() == expected


def test_options_win_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0")
    assert asked("--compile") == "on"
    monkeypatch.setenv(VARIABLE, "1")
    assert asked("--no-compile") == "off"


def test_without_either_the_command_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert asked() == "auto"


def test_both_options_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="drop one"):
        asked("--compile", "--no_compile")


def test_prediction_has_the_same_options() -> None:
    args = predict.build_parser().parse_args(["-i", "a", "-o", "b", "--compile"])
    assert compile_wish(args) == "on"
