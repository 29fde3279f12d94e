"""What is known of videos before they are predicted."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from nnunetlike.data.case import CaseFiles
from nnunetlike.data.video import VideoFacts
from nnunetlike.inference.cases import InputCase
from nnunetlike.inference.videos import as_videos


def case(name: str = "x") -> InputCase:
    files = CaseFiles(case_id=name, images=(Path(f"{name}_0000.nii.gz"),), channels=1)
    return InputCase(files=files, suffix=".nii.gz")


def describe(path: Path, **facts: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"patient": "p", "labelled_frames": [], **facts}))


def test_facts_lie_beside_the_images_or_beside_their_folder(tmp_path: Path) -> None:
    images = tmp_path / "imagesTs"
    describe(images / "a.json", view="2CH")
    describe(tmp_path / "casesTs" / "a.json", view="4CH")
    describe(tmp_path / "casesTs" / "b.json", view="4CH")
    found = as_videos([case("a"), case("b")], images, "mm")
    assert [c.facts and c.facts.view for c in found] == ["2CH", "4CH"]


def test_a_video_of_which_nothing_is_known_is_its_own_patient(tmp_path: Path) -> None:
    found = as_videos([case()], tmp_path, "px")[0]
    assert found.facts == VideoFacts(patient="x", labelled_frames=(), spacing_known=False)
    assert found.files.video == found.facts


def test_the_unit_of_the_plans_decides_how_the_spacing_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    describe(tmp_path / "x.json", spacing_known=True)
    describe(tmp_path / "y.json", spacing_known=False)
    with caplog.at_level(logging.WARNING):
        pixels = as_videos([case("x"), case("y")], tmp_path, "px")
    assert [c.files.video and c.files.video.spacing_known for c in pixels] == [False, False]
    assert [c.facts and c.facts.spacing_known for c in pixels] == [True, False]
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        as_videos([case("x"), case("y")], tmp_path, "mm")
    assert "the spacing of 1 video(s) is not known (y, for example)" in caplog.text
