"""What calls log in worker processes, which have no console and no log file, on its way to both."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

SHOWN = 5
"""How many notes that differ in their values only, the file say, are passed on; warnings always."""

PACKAGE = "nnunetlike"
"""Parent of the package's loggers."""


@dataclass(frozen=True)
class Note:
    """A line that a call logged."""

    logger: str
    level: int
    kind: str
    """The line before values were put in."""

    text: str


class Notebook(logging.Handler):
    """Keeps what a call logs, for its owner."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[Note] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        note = Note(record.name, record.levelno, str(record.msg), record.getMessage())
        self._kept.append(note)

    def taken(self) -> tuple[Note, ...]:
        """Return what was kept since the last time."""
        kept, self._kept = tuple(self._kept), []
        return kept


def package_level() -> int:
    """Return the least level that the package logs in this process."""
    return logging.getLogger(PACKAGE).getEffectiveLevel()


def keep_notes(level: int) -> Notebook:
    """Make this process keep what the package logs, in place of what a fork inherited."""
    notebook, package = Notebook(), logging.getLogger(PACKAGE)
    package.handlers = [notebook]
    package.propagate = False
    package.setLevel(level)
    return notebook


@dataclass
class Relay:
    """Logs in this process what calls logged in workers: of informations of one kind a few."""

    _last: dict[tuple[str, str], Note] = field(default_factory=dict)
    _times: dict[tuple[str, str], int] = field(default_factory=dict)

    def pass_on(self, notes: Sequence[Note]) -> None:
        """Log the notes of one call."""
        for note in notes:
            key = (note.logger, note.kind)
            self._last[key] = note
            self._times[key] = self._times.get(key, 0) + 1
            if self._times[key] <= SHOWN or note.level > logging.INFO:
                logging.getLogger(note.logger).log(note.level, "%s", note.text)

    def sum_up(self) -> None:
        """Log how many were held back."""
        for key, note in self._last.items():
            if note.level <= logging.INFO and self._times[key] > SHOWN:
                more = self._times[key] - SHOWN
                logging.getLogger(note.logger).info("%d more like this: %s", more, note.text)
        self._last.clear()
        self._times.clear()
