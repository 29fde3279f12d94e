"""Which planners a user asks for, and which of them a task gets."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TypeAlias

from nnunetlike.core.errors import UsageError
from nnunetlike.core.paths import VIDEO
from nnunetlike.experiment_planning.planners import PLANNERS, VIDEO_PLANNERS, Planner
from nnunetlike.experiment_planning.planners.common import is_flat
from nnunetlike.experiment_planning.planners.pretrained import (
    PRETRAINED_PLANNER,
    PretrainedPlanner,
)
from nnunetlike.plans.fingerprint import Fingerprint

VIDEO_PLANNER = "ExperimentPlanner_Video2D"

PlannersByKind: TypeAlias = Mapping[str, Planner | None]
"""By the end of the plans file's name: `3D`, `2D` and `video2D`."""


def asked_planners(args: argparse.Namespace) -> PlannersByKind:
    """Return the planners that the options ask for; None where nothing is to be planned.

    Raises:
        UsageError: one does not exist, or options do not go together.
    """
    planners = {"3D": _planner_3d(args), "2D": _planner_2d(args), "video2D": _planner_video(args)}
    if args.gpu_mem is None:
        return planners
    return {kind: _within(args.gpu_mem, planner) for kind, planner in planners.items()}


def require_kind_of_planner(task: str, planner_video: str | None, *, videos: bool) -> None:
    """Do nothing if `-plv` fits a task.

    Args:
        task: its name.
        planner_video: what the user gave, if anything.
        videos: the cases of the task are such.

    Raises:
        UsageError: it is None for a task of videos, or given for one that has none.
    """
    if videos and planner_video == "None":
        raise UsageError(
            f"{task}: its dataset.json declares videos, so nothing else can be planned; leave out "
            "-plv None"
        )
    if not videos and planner_video not in (None, "None"):
        raise UsageError(
            f"{task}: -plv {planner_video} plans videos, and its dataset.json declares none "
            "('video'); leave -plv out"
        )


def planners_for(task: str, planners: PlannersByKind, fingerprint: Fingerprint) -> PlannersByKind:
    """Return the planners that fit the cases: that of videos, or 2D only where these are 2D.

    Raises:
        UsageError: only 3D is asked for, but the images are 2D.
    """
    if fingerprint.videos is not None:
        print(f"{task}: its cases are videos, so it is planned for {VIDEO} only")
        return {"video2D": planners["video2D"]}
    planners = {kind: planners[kind] for kind in ("3D", "2D")}
    if planners["3D"] is None or not is_flat(fingerprint):
        return planners
    if planners["2D"] is None:
        raise UsageError(
            f"{task}: its images are 2D, so only 2d can be planned; leave out -pl2d None"
        )
    print(f"{task}: its images are 2D, so it is planned for 2d only")
    return {**planners, "3D": None}


def _planner_3d(args: argparse.Namespace) -> Planner | None:
    """Return the 3D planner the user asks for.

    Raises:
        UsageError: it does not exist, or options that belong together are not given together.
    """
    together = (
        args.planner3d == PRETRAINED_PLANNER,
        args.overwrite_plans is not None,
        args.overwrite_plans_identifier is not None,
    )
    if any(together) and not all(together):
        raise UsageError(
            f"to take plans over, give all three: -pl3d {PRETRAINED_PLANNER} -overwrite_plans FILE "
            "-overwrite_plans_identifier NAME"
        )
    if all(together):
        return PretrainedPlanner(args.overwrite_plans, args.overwrite_plans_identifier)
    return None if args.planner3d == "None" else PLANNERS.get(args.planner3d)


def _planner_2d(args: argparse.Namespace) -> Planner | None:
    if args.overwrite_plans is not None:
        if args.planner2d != "None":
            print("Plans can be taken over in 3D only; nothing is planned in 2D.")
        return None
    return None if args.planner2d == "None" else PLANNERS.get(args.planner2d)


def _planner_video(args: argparse.Namespace) -> Planner | None:
    if args.planner_video == "None":
        return None
    return VIDEO_PLANNERS.get(args.planner_video or VIDEO_PLANNER)


def _within(gigabytes: float, planner: Planner | None) -> Planner | None:
    if not gigabytes > 0:
        raise UsageError(f"--gpu_mem {gigabytes:g}: give the size of the GPU in GB")
    return None if planner is None else planner.within(gigabytes)
