from __future__ import annotations

import argparse

import pytest

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.run.command_line import CommandParser, run_command


def parser() -> CommandParser:
    made = CommandParser(prog="nnUNet_x")
    made.add_argument("-pl3d", "--planner3d", default="A", help="a planner")
    made.add_argument("--num_threads_preprocessing", type=int, default=6, help="threads")
    made.add_argument("-f", nargs="+", help="folds")
    return made


@pytest.mark.parametrize("option", ["-pl3d", "--pl3d", "--planner3d", "-planner3d"])
def test_one_dash_or_two(option: str) -> None:
    assert parser().parse_args([option, "B"]).planner3d == "B"


@pytest.mark.parametrize(
    "words", [["--num-threads-preprocessing", "2"], ["-num_threads-preprocessing=2"]]
)
def test_dashes_or_underscores(words: list[str]) -> None:
    assert parser().parse_args(words).num_threads_preprocessing == 2


def test_values_are_left_alone() -> None:
    assert parser().parse_args(["-f", "0", "-1"]).f == ["0", "-1"]


def test_an_unknown_option_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parser().parse_args(["--planer", "B"])
    assert stop.value.code == 2 and "--planer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [(None, 0), (UsageError("x"), 2), (DataError("x"), 3), (MemoryError(), 4),
     (KeyboardInterrupt(), 5)],
)  # fmt: skip
def test_errors_become_exit_codes_and_one_line(
    error: BaseException | None, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(args: argparse.Namespace) -> None:
        if error is not None:
            raise error

    assert run_command(command, parser(), []) == status
    assert capsys.readouterr().err.count("\n") == (1 if error else 0)
