"""Planners: from a fingerprint to plans."""

from __future__ import annotations

from typing import Protocol

from nnunetlike.core.registry import Registry
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans


class Planner(Protocol):
    """Makes plans; pure, and found by name on the command line (`-pl3d NAME`, `-pl2d NAME`)."""

    @property
    def plans_identifier(self) -> str:
        """First part of the plans file's name, `nnUNetPlansv2.1`."""
        ...

    def within(self, gigabytes: float) -> Planner:
        """Return this planner for a device of another size, with another `plans_identifier`.

        Raises:
            UsageError: its plans do not depend on memory.
        """
        ...

    def plan(self, fingerprint: Fingerprint) -> Plans:
        """Return plans for a data set.

        Raises:
            PlanError: nothing fits (the message says what and why).
        """
        ...


PLANNERS: Registry[Planner] = Registry("planner", "nnunetlike.experiment_planning.planners")


VIDEO_PLANNERS: Registry[Planner] = Registry(
    "planner of videos", "nnunetlike.experiment_planning.planners"
)
"""Planners whose fingerprints have videos (`-plv NAME`)."""


def fitted(identifier: str, gigabytes: float) -> str:
    """Return an identifier of plans or data for a device of so many gigabytes."""
    return f"{identifier}_fit{gigabytes:g}GB"
