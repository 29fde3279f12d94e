from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.clinical_table import write_clinical_csv

NAMES = {0: "background", 1: "LV", 2: "ignore"}


def write(path: Path, *minor: float, spacing: float = 0.5) -> Path:
    """Write a video of ellipses, their long axis 40 pixels, with these short half axes."""
    y, x = np.mgrid[:64, :64] - 31.7
    label = np.stack([(y / 20) ** 2 + (x / max(b, 1e-9)) ** 2 < 1 for b in minor]).astype(np.uint8)
    geometry = Geometry(shape=label.shape, spacing=(1.0, spacing, spacing))
    format_of(path).write_label(label, geometry, path)
    return path


def facts(patient: str, view: str | None = None, **more: Any) -> VideoFacts:
    return VideoFacts(
        **{"patient": patient, "view": view, "labelled_frames": (), "ed": 0, "es": 1, **more}
    )


def table(tmp_path: Path, cases: dict[str, tuple[Path, VideoFacts]], **more: Any) -> pd.DataFrame:
    path = tmp_path / "clinical.csv"
    write_clinical_csv(
        path, {c: p for c, (p, _) in cases.items()}, {c: f for c, (_, f) in cases.items()},
        names=NAMES, **more,
    )  # fmt: skip
    return pd.read_csv(path)


def volume(b: float) -> float:
    """mL of an ellipsoid of half axes 20, b, b pixels of 0.5 mm."""
    return 4 / 3 * math.pi * 20 * b * b * 0.5**3 / 1000


def test_both_views_of_a_patient_give_one_biplane_row(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        {
            "a_4CH": (write(tmp_path / "4.nii.gz", 14, 11), facts("a", "4CH", fps=50.0)),
            "a_2CH": (write(tmp_path / "2.nii.gz", 12, 9), facts("a", "2CH", fps=50.0)),
        },
    )
    assert len(found) == 1
    row = found.iloc[0]
    assert (row.patient, row.method, row.status, row.ed, row.es) == (
        "a", "biplane_discs_20", "ok", 0, 1,
    )  # fmt: skip
    assert row.phases == "given" and row.fps == 50 and math.isnan(row.failure)
    exact = 100 * (1 - 11 * 9 / (14 * 12))
    assert row.ef == pytest.approx(exact, abs=2.5)
    assert row.edv_ml == pytest.approx(math.sqrt(volume(14) * volume(12)), rel=0.04)
    assert row.ef_4ch == pytest.approx(100 * (1 - (11 / 14) ** 2), abs=2.5)
    assert row.edv_ml_2ch == pytest.approx(volume(12), rel=0.04)
    assert (row.case_2ch, row.case_4ch) == ("a_2CH", "a_4CH")


def test_one_view_gives_a_single_plane_row(tmp_path: Path) -> None:
    found = table(tmp_path, {"b": (write(tmp_path / "b.nii.gz", 12, 9), facts("b", "4CH"))})
    row = found.iloc[0]
    assert row.method == "single_plane_discs_20" and row.ef == row.ef_4ch
    assert row.edv_ml == row.edv_ml_4ch and row.ef_area_length == pytest.approx(43.75, abs=2.5)
    assert row.gls == row.gls_4ch


def test_a_view_that_failed_leaves_the_other_and_is_named(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        {
            "a_4CH": (write(tmp_path / "4.nii.gz", 14, 0), facts("a", "4CH")),
            "a_2CH": (write(tmp_path / "2.nii.gz", 12, 9), facts("a", "2CH")),
        },
    )
    row = found.iloc[0]
    assert (row.method, row.status) == ("single_plane_discs_20", "partial")
    assert row.failure == "4CH: no cavity at ES, frame 1"
    assert row.ef == row.ef_2ch and math.isnan(row.ef_4ch)


def test_a_patient_who_cannot_be_measured_has_a_row_that_says_why(tmp_path: Path) -> None:
    found = table(tmp_path, {"c": (write(tmp_path / "c.nii.gz", 0, 0), facts("c"))})
    row = found.iloc[0]
    assert (row.patient, row.status, row.failure) == ("c", "failed", "no cavity at ED, frame 0")
    assert math.isnan(row.ef) and math.isnan(row.edv_ml)


def test_without_any_cavity_there_are_no_phases_to_tell(tmp_path: Path) -> None:
    path = write(tmp_path / "c.nii.gz", 0, 0)
    row = table(tmp_path, {"c": (path, facts("c", "4CH", ed=None))}).iloc[0]
    assert row.failure == "4CH: no cavity in any frame"
    assert math.isnan(row.ed) and math.isnan(row.ed_4ch) and row.case_4ch == "c"


def test_no_videos_give_a_table_with_a_head_only(tmp_path: Path) -> None:
    assert table(tmp_path, {}).empty


def test_views_in_different_units_cannot_be_combined_and_that_is_said(tmp_path: Path) -> None:
    found = table(
        tmp_path,
        {
            "a_4CH": (write(tmp_path / "4.nii.gz", 14, 11), facts("a", "4CH")),
            "a_2CH": (write(tmp_path / "2.nii.gz", 12, 9), facts("a", "2CH", spacing_known=False)),
        },
    )
    row = found.iloc[0]
    assert (row.method, row.status) == ("single_plane_discs_20", "partial")
    assert row.failure == "2CH in px and 4CH in mm cannot be combined"


def test_without_spacing_there_are_fractions_and_no_volumes(tmp_path: Path) -> None:
    path = write(tmp_path / "d.nii.gz", 12, 9)
    row = table(tmp_path, {"d": (path, facts("d", spacing_known=False))}).iloc[0]
    assert math.isnan(row.edv_ml) and math.isnan(row.esv_ml)
    assert row.ef == pytest.approx(43.75, abs=2.5) and row.status == "ok"


def test_a_negative_fraction_is_told_as_it_is(tmp_path: Path) -> None:
    row = table(tmp_path, {"e": (write(tmp_path / "e.nii.gz", 9, 12), facts("e"))}).iloc[0]
    assert row.ef < -50


def test_videos_of_one_view_get_a_row_each(tmp_path: Path) -> None:
    path = write(tmp_path / "f.nii.gz", 12, 9)
    found = table(tmp_path, {"f1": (path, facts("f")), "f2": (path, facts("f"))})
    assert found.patient.tolist() == ["f", "f"]


def test_a_video_without_facts_is_its_own_patient_with_phases_found(tmp_path: Path) -> None:
    path = write(tmp_path / "g.nii.gz", 9, 9, 13, 13, 13, 9, 7, 7, 7)
    out = tmp_path / "clinical.csv"
    found = write_clinical_csv(out, {"g": path}, {}, names=NAMES)
    row = found.iloc[0]
    assert (row.patient, row.phases, row.ed, row.es) == ("g", "found", 3, 7)
    assert ",3,7,found," in out.read_text()  # whole numbers


def test_a_task_without_a_ventricle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Call it LV"):
        write_clinical_csv(tmp_path / "x.csv", {}, {}, names={0: "background", 1: "RV", 2: "LA"})


@pytest.mark.slow
def test_the_table_does_not_depend_on_processes_or_order(tmp_path: Path) -> None:
    cases = {
        f"p{i}": (write(tmp_path / f"{i}.nii.gz", 12 + i, 9), facts(f"p{i}")) for i in range(3)
    }
    here = table(tmp_path, cases)
    there = table(tmp_path, dict(reversed(cases.items())), processes=2)
    pd.testing.assert_frame_equal(here, there)
