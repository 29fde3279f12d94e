"""Plans in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.experiment_planning.summarize import (
    Memory,
    describe_fingerprint,
    describe_memory,
    machine_memory,
    plans_table,
    readable,
    stage_names,
)
from nnunetlike.plans.fingerprint import Fingerprint

SMALL = Fingerprint(
    sizes=((10, 40, 44), (12, 40, 40)),
    spacings=((3.0, 1.0, 1.0), (3.0, 1.0, 1.0)),
    classes=(1, 3),
    modalities={0: "T1", 1: "T2"},
    intensities=None,
    size_reductions={"a": 0.5, "b": 1.0},
)
LARGE = Fingerprint(
    sizes=((482, 512, 512),) * 5,
    spacings=((1.0, 0.77, 0.77),) * 5,
    classes=(1, 2),
    modalities={0: "CT"},
    intensities=None,
    size_reductions={str(i): 1.0 for i in range(5)},
)


def test_what_was_found_is_told() -> None:
    said = describe_fingerprint(SMALL)
    for part in (
        "cases           2",
        "0 T1, 1 T2",
        "1, 3, and 0",
        "11 x 40 x 42",
        "3 x 1 x 1 mm",
        "75%",
    ):
        assert part in said, part


@pytest.mark.parametrize(
    ("found", "row"),
    [
        (("LPS", "LPS"), "orientation     LPS"),
        (("LPS", "RAS"), "orientation     1 LPS, 1 RAS: they differ"),
        ((None, "RAS"), "orientation     1 unknown, 1 RAS: they differ"),
        ((None, None), "orientation     unknown: single slices, or files that do not say"),
    ],
)
def test_the_orientation_of_the_cases_is_told(found: tuple[str | None, ...], row: str) -> None:
    assert describe_fingerprint(replace(SMALL, orientations=found)).endswith(f"  {row}")
    assert "orientation" not in describe_fingerprint(SMALL)


def test_stages_have_the_names_of_configurations() -> None:
    three, two = (PLANNERS.get(f"ExperimentPlanner{d}_v21").plan(LARGE) for d in ("3D", "2D"))
    assert stage_names(three) == {0: "3d_lowres", 1: "3d_fullres"}
    assert stage_names(two) == {0: "2d"}


def test_decisions_stand_in_one_column_per_stage() -> None:
    lines = plans_table(PLANNERS.get("ExperimentPlanner3D_v21").plan(LARGE)).splitlines()
    assert "3d_lowres (stage 0)" in lines[0] and "3d_fullres (stage 1)" in lines[0]
    patch = next(line for line in lines if "patch size" in line)
    assert patch.count("128 x 128 x 128") == 2


def test_a_network_that_does_not_fit_is_pointed_out() -> None:
    plans = PLANNERS.get("ExperimentPlanner2D_v21").plan(SMALL)
    assert describe_memory(plans, Memory("card", 1000)).count("does not fit") == 2
    assert "does not fit" not in describe_memory(plans, Memory("card", 2**40))


@pytest.mark.parametrize(
    ("size", "text"), [(2**20, "1 MiB"), (2**30, "1.0 GiB"), (3 * 2**29, "1.5 GiB"), (0, "0 MiB")]
)
def test_bytes_are_readable(size: int, text: str) -> None:
    assert readable(size) == text


def test_this_machine_has_memory() -> None:
    assert machine_memory().total_bytes > 2**28
