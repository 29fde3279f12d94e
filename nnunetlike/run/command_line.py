"""What all commands share: spellings of options, exit codes, interruption."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from nnunetlike import __version__
from nnunetlike.core.errors import InterruptedRunError
from nnunetlike.core.logs import set_up_console
from nnunetlike.core.system_errors import explained

BUG = 1
READER_GONE = 141


class CommandParser(argparse.ArgumentParser):
    """A parser that takes every option with one dash or two, and `-` or `_` between words.

    Its help ends with examples, command lines that the parser takes.
    """

    def __init__(self, *, examples: Sequence[str] = (), **settings: Any) -> None:
        self.examples = tuple(examples)
        epilog = "\n  ".join(("examples:", *examples)) if examples else None
        super().__init__(formatter_class=_Help, allow_abbrev=False, epilog=epilog, **settings)
        self._spellings: dict[str, str] = {}
        self.add_argument("--version", action="version", version=f"nnunetlike {__version__}")

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an argument as `argparse` does and remember all spellings of its options."""
        action = super().add_argument(*names, **settings)
        for name in names:
            if isinstance(name, str) and name.startswith("-") and hasattr(self, "_spellings"):
                self._spellings[_normal(name)] = name
        return action

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse after replacing each spelling of an option by the one it was declared with."""
        words = list(sys.argv[1:] if args is None else args)
        return super().parse_known_args([self._declared(word) for word in words], namespace)

    def _declared(self, word: str) -> str:
        if not word.startswith("-") or word in ("-", "--"):
            return word
        option, equals, value = word.partition("=")
        return self._spellings.get(_normal(option), option) + equals + value

    def error(self, message: str) -> NoReturn:
        """Print the usage and end with exit code 2."""
        super().error(message)


class _Help(argparse.HelpFormatter):
    """Short usage, what is required, defaults that say something, examples line by line."""

    def add_usage(
        self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None
    ) -> None:
        """Show what is required, and that there are options."""
        needed = [a for a in actions if a.required or not a.option_strings]
        self._prog += " [options]"
        super().add_usage(usage, needed, (), prefix)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if not action.option_strings or action.default is argparse.SUPPRESS:
            return action.help
        if action.required:
            return f"{action.help} (required)"
        says_nothing = action.default is None or action.default is False or action.default == []
        default = action.default
        if isinstance(default, (list, tuple)):
            default = " ".join(map(str, default))
        return action.help if says_nothing else f"{action.help} (default: {default})"

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


def process_count(text: str) -> int:
    """Return a number of worker processes; 0 means to work in this process.

    Raises:
        argparse.ArgumentTypeError: it is not a number of 0 or more.
    """
    if not text.isdigit():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of processes: give 0 (work in this process) or more"
        )
    return int(text)


def _normal(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def run_command(
    command: Callable[[argparse.Namespace], int | None],
    build_parser: Callable[[], CommandParser],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, run `command` and return its exit status.

    0 is success; 2 wrong usage, 3 wrong data, 4 lacking resources, 5 interrupted but resumable.
    141: the reader of the output went away, as in `| head`. 1, after a traceback: a fault of the
    program.
    """
    set_up_console()
    try:
        with _terminable():
            status = command(build_parser().parse_args(argv)) or 0
            sys.stdout.flush()
    except KeyboardInterrupt:
        _print_error("interrupted; run the same command again to go on")
        return InterruptedRunError.exit_code
    except Exception as error:  # noqa: BLE001 - the last one to ask; unknown ones are reported
        return _exit_code(error)
    return status


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does: with temporary files removed and exit code 5."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit_code(error: Exception) -> int:
    """Report an error and return the exit status: one line for what the user can mend."""
    if isinstance(error, BrokenPipeError) and _reader_is_gone():
        return READER_GONE
    known = explained(error)
    if known is not None:
        _print_error(str(known))
        return known.exit_code
    traceback.print_exception(error)
    _print_error(
        f"this is a bug of nnunetlike {__version__}. Please report the lines above with the "
        "command and the output of nnUNet_env"
    )
    return BUG


def _print_error(message: str) -> None:
    with suppress(OSError):  # nobody is there to read it
        print(f"error: {message}", file=sys.stderr, flush=True)


def _reader_is_gone() -> bool:
    """Tell whether nobody reads standard output; what is still to be written goes to nowhere then.

    Otherwise Python would complain of it at its end.
    """
    output = sys.stdout.fileno()
    watch = select.poll()
    watch.register(output, 0)  # errors are always told
    if not any(event & select.POLLERR for _, event in watch.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, output)
    os.close(nowhere)
    return True
