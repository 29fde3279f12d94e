"""Every primitive of augmentation against nnU-Net v1 with the same draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.training.augmentation import intensity
from nnunetlike.training.augmentation.spatial import (
    Affine,
    centre_spans,
    cut,
    generator_patch_size,
    resample,
)
from nnunetlike.training.sources.patches import forced_foreground

TOLERANCE = 1e-6
COLOURS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "gamma": lambda x, c: intensity.gamma(x, c["gamma"], inverted=c["invert_image"]),
    "contrast": lambda x, c: intensity.contrast(x, c["factor"]),
    "mult": lambda x, c: intensity.brightness(x, c["factor"]),
    "blur": lambda x, c: intensity.blur(x, c["sigma"]),
    "lowres": lambda x, c: intensity.low_resolution(x, c["zoom"], in_plane=c["ignore_axes"] == [0]),
}


@pytest.fixture(scope="module")
def arrays(golden: Path) -> dict[str, Any]:
    with np.load(golden / "augment/augment.npz") as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def cases(golden: Path) -> list[dict[str, Any]]:
    content = json.loads((golden / "augment/augment.json").read_text())
    return list(content["cases"])


def test_rotation_and_scaling_are_v1s(arrays: dict[str, Any], cases: list[dict[str, Any]]) -> None:
    checked = 0
    for case in (case for case in cases if case["kind"].startswith("spatial")):
        key, base = case["key"], case["key"].rsplit("_", 1)[0]
        degrees = case.get("angles_deg_axis0_1_2") or [case["angle_deg"]]
        affine = Affine(tuple(np.deg2rad(degrees)), case["scale"])
        image, label = resample(
            arrays[f"{base}_data"][0], arrays[f"{base}_seg"][0, 0], affine, tuple(case["patch"])
        )
        assert np.abs(image - arrays[key][0]).max() < TOLERANCE, key
        np.testing.assert_array_equal(label, arrays[f"{key}_seg"][0, 0], key)
        checked += 1
    assert checked == 11


def test_centre_crops_are_v1s(arrays: dict[str, Any], cases: list[dict[str, Any]]) -> None:
    for case in (case for case in cases if case["kind"] == "centre crop"):
        key = case["key"]
        base = key.removesuffix("_out")
        image, label = arrays[f"{base}_in"][0], arrays[f"{base}_seg"][0, 0]
        spans = centre_spans(label.shape, case["patch"])
        np.testing.assert_array_equal(cut(image, spans, 0), arrays[key][0])
        np.testing.assert_array_equal(cut(label, spans, 0), arrays[f"{key}_seg"][0, 0])


@pytest.mark.parametrize("kind", COLOURS)
def test_intensities_are_v1s(
    kind: str, arrays: dict[str, Any], cases: list[dict[str, Any]]
) -> None:
    for case in (case for case in cases if case["key"].startswith(kind)):
        for channel, expected in zip(arrays["colour_in"], arrays[case["key"]], strict=True):
            assert np.abs(COLOURS[kind](channel, case) - expected).max() < TOLERANCE, case


def test_generator_patch_sizes_are_v1s(golden: Path) -> None:
    rows = json.loads((golden / "planning/get_patch_size.json").read_text())
    for row in rows:
        angles = [max(map(abs, row[f"rot_{axis}"])) for axis in "xyz"]
        size = generator_patch_size(tuple(row["patch"]), angles, min(row["scale"]))
        assert list(size) == row["out"], row


def test_the_forced_samples_of_a_batch_are_v1s(golden: Path) -> None:
    rows = json.loads((golden / "training/schedules.json").read_text())["get_do_oversample"]
    for share, by_size in rows.items():
        for size, flags in by_size.items():
            assert list(forced_foreground(int(size), float(share))) == flags
