"""Processes that work on the same thing: who this one is, and where all of them meet."""

from __future__ import annotations

from typing import Protocol


class Team(Protocol):
    """Processes numbered from 0, of which number 0 speaks for all."""

    @property
    def rank(self) -> int:
        """Number of this process."""
        ...

    @property
    def world_size(self) -> int:
        """Number of processes."""
        ...

    def meet(self, place: str) -> None:
        """Return when every process has come to a place, named alike by all and used once.

        It is no collective: it may be waited for much longer than a step of training takes.

        Raises:
            NnunetlikeError: another process failed; it will not come.
        """
        ...


class Alone:
    """A team of one process."""

    rank = 0
    world_size = 1

    def meet(self, place: str) -> None:
        """Return at once."""


ALONE = Alone()


ALONE = Alone()
