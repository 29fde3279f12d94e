"""What all commands share: spellings of options, exit codes, interruption."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from nnunetlike import __version__
from nnunetlike.core.errors import InterruptedRunError, NnunetlikeError
from nnunetlike.core.logs import set_up_console


class CommandParser(argparse.ArgumentParser):
    """A parser that takes every option with one dash or two, and `-` or `_` between words."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False, **settings
        )
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


def _normal(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def run_command(
    command: Callable[[argparse.Namespace], int | None],
    parser: CommandParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse `argv`, run `command` and return its exit status.

    0 is success; 2 wrong usage, 3 wrong data, 4 lacking resources, 5 interrupted but resumable. A
    traceback means a fault of the program.
    """
    set_up_console()
    try:
        return command(parser.parse_args(argv)) or 0
    except NnunetlikeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("error: interrupted; run the same command again to go on", file=sys.stderr)
        return InterruptedRunError.exit_code
    except MemoryError:
        print("error: memory ran out; use fewer processes or a smaller batch", file=sys.stderr)
        return 4
