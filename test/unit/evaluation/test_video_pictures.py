from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.agreement import agreement
from nnunetlike.evaluation.clinical import Cycle
from nnunetlike.evaluation.video_case import VideoFiles, VideoScores
from nnunetlike.evaluation.video_pictures import save_area_curves, save_bland_altman


def clinical(*pairs: tuple[float | None, float | None]) -> dict[str, Any]:
    both = [(p, q) for p, q in pairs if p is not None and q is not None]
    return {
        "method": "biplane_discs_20",
        **agreement(both).to_plain(),
        "values": [{"predicted": p, "reference": q} for p, q in pairs],
    }


def video(name: str, predicted: Any, reference: Any, cycle: Cycle | None = None) -> VideoScores:
    facts = VideoFacts(patient=name, labelled_frames=())
    files = VideoFiles(
        prediction=Path(f"{name}.nii.gz"), reference=Path(f"{name}.nii.gz"), facts=facts
    )
    areas = np.array(predicted, float), np.array(reference, float)
    cycle = cycle or Cycle()
    return VideoScores(files=files, frames={}, temporal={}, areas=areas, cycles=(cycle, cycle))


def colours(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as picture:
        return set(map(tuple, np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()))


def test_points_bias_and_limits_are_drawn_the_same_each_time(tmp_path: Path) -> None:
    content = clinical((55.0, 50.0), (60.0, 62.0), (41.0, 40.0), (None, 30.0))
    for name in ("a.png", "b.png"):
        save_bland_altman(content, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (0xD5, 0x5E, 0x00) in colours(tmp_path / "a.png")  # lines


def test_one_pair_has_a_bias_and_no_limits(tmp_path: Path) -> None:
    save_bland_altman(clinical((55.0, 50.0)), tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


def test_without_a_pair_an_old_picture_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "bland_altman.png"
    path.write_bytes(b"old")
    save_bland_altman(clinical((None, 50.0)), path)
    assert not path.exists()
    path.write_bytes(b"old")
    save_area_curves([], path)
    assert not path.exists()


@pytest.mark.parametrize("cases", [2, 14])
def test_curves_of_at_most_twelve_cases_are_drawn_by_name(tmp_path: Path, cases: int) -> None:
    cycle = Cycle(ed=0, es=3)
    videos = [
        video(f"p{n:02d}", [9, 8, 7, 6], [9, math.nan, math.nan, 6], cycle) for n in range(cases)
    ]
    save_area_curves(videos, tmp_path / "a.png")
    save_area_curves(videos[::-1], tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    save_area_curves(videos[:12], tmp_path / "c.png")
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "a.png").read_bytes()


def test_empty_unlabelled_and_single_frames_are_drawn_too(tmp_path: Path) -> None:
    odd = [video("a", [0, 0], [math.nan] * 2), video("b", [5], [math.nan])]
    save_area_curves(odd, tmp_path / "a.png")
    assert {(0xD5, 0x5E, 0x00)} <= colours(tmp_path / "a.png")
