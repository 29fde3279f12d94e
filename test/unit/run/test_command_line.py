from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

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

    assert run_command(command, parser, []) == status
    assert capsys.readouterr().err.count("\n") == (1 if error else 0)


def test_a_fault_of_the_program_ends_with_its_traceback_and_whom_to_tell(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(args: argparse.Namespace) -> None:
        raise ZeroDivisionError("oops")

    assert run_command(command, parser, []) == 1
    lines = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError: oops" in lines
    assert lines[-1].startswith("error: this is a bug of nnunetlike ")
    assert "nnUNet_env" in lines[-1]


def test_sigterm_ends_a_command_as_control_c_does(capsys: pytest.CaptureFixture[str]) -> None:
    cleaned = []
    before = signal.getsignal(signal.SIGTERM)

    def command(args: argparse.Namespace) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            cleaned.append(True)

    assert run_command(command, parser, []) == 5
    assert cleaned and "run the same command again" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_reader_that_goes_away_ends_the_command_quietly() -> None:
    code = (
        "import sys; from nnunetlike.run.command_line import *\n"
        "def command(args):\n"
        "    for i in range(100000): print(i, flush=True)\n"
        "sys.exit(run_command(command, lambda: CommandParser(prog='x'), []))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == b""


def test_log_lines_without_a_reader_do_not_stop_the_work() -> None:
    code = (
        "import sys, logging; from nnunetlike.run.command_line import *\n"
        "def command(args):\n"
        "    for i in range(1000): logging.getLogger('nnunetlike.x').info('line %d', i)\n"
        "    sys.stderr.write('done')\n"
        "sys.exit(run_command(command, lambda: CommandParser(prog='x'), []))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.wait(timeout=60) == 0
        assert process.stderr.read() == b"done"
