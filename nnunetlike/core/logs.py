"""Logging set-up for commands: plain lines on the console, optionally timestamped into a file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path


def set_up_console(level: int = logging.INFO) -> None:
    """Send the package's log lines to standard output, warnings marked as such."""
    root = logging.getLogger("nnunetlike")
    if root.handlers:
        return
    handler = _Console()
    handler.setFormatter(_Plain())
    root.addHandler(handler)
    root.setLevel(level)


def speak_for_process(rank: int) -> None:
    """Let a process that is not the main one of its run say only warnings, with its number."""
    root = logging.getLogger("nnunetlike")
    root.setLevel(logging.WARNING)
    for handler in root.handlers:
        handler.setFormatter(_Plain(f"process {rank}: "))


def add_file(path: Path) -> logging.Handler:
    """Also append the log lines to `path`, each with v1's timestamp; return the handler."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = _File(path, encoding="utf-8", delay=True)
    handler.setFormatter(
        logging.Formatter("%(asctime)s.%(msecs)03d000: %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    logging.getLogger("nnunetlike").addHandler(handler)
    return handler


def remove(handler: logging.Handler) -> None:
    """Detach and close a handler that `add_file` returned."""
    logging.getLogger("nnunetlike").removeHandler(handler)
    handler.close()


class _File(logging.FileHandler):
    """Says once on the console when it cannot write, a full disk say, and stays silent then."""

    _failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Tell why the line is missing, the first time."""
        if not self._failed:
            reason = sys.exc_info()[1]
            print(f"warning: {self.baseFilename} cannot be written: {reason}", file=sys.stderr)  # noqa: T201 - a log line would come back here
        self._failed = True


class _Console(logging.Handler):
    """Writes to whatever is standard output at the time, as `print` does."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a terminal that is gone is no reason to stop."""
        try:
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            return
        except (OSError, ValueError):
            self.handleError(record)


class _Plain(logging.Formatter):
    def __init__(self, who: str = "") -> None:
        super().__init__()
        self._who = who

    def format(self, record: logging.LogRecord) -> str:
        """Return the message; from warnings on with its level and, if set, the process."""
        message = record.getMessage()
        return (
            f"{record.levelname.lower()}: {self._who}{message}"
            if record.levelno > logging.INFO
            else message
        )
