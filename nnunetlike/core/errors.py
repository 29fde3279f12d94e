"""Errors that a user can mend, each with the exit code its command ends with."""

from __future__ import annotations


class NnunetlikeError(Exception):
    """Something the user can mend; the message says what, where and how."""

    exit_code: int = 3


class UsageError(NnunetlikeError):
    """The command line or the environment asks for something that does not exist."""

    exit_code = 2


class DataError(NnunetlikeError):
    """Images, labels or files are not what they should be."""

    exit_code = 3


class ShapeError(DataError):
    """Two arrays that belong together do not fit."""


class PlanError(DataError):
    """Plans contradict themselves or the data."""


class ResourceError(NnunetlikeError):
    """Memory, disk or processes ran out."""

    exit_code = 4


class WorkerError(ResourceError):
    """A worker process died, or its call failed unforeseen; it may succeed when tried again."""


class WorkerBugError(WorkerError):
    """A call raised what only a fault of the program explains; the message ends with the trace."""

    exit_code = 1


class PeerError(ResourceError):
    """Another process of the same run ended, or did not come in time."""


class InterruptedRunError(NnunetlikeError):
    """The run was stopped from outside and can go on where it was."""

    exit_code = 5
