"""Postprocessing against what nnU-Net v1 did on the same label maps (golden/open/arrays)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.evaluation.evaluator import evaluate_folder
from nnunetlike.postprocessing.connected_components import keep_largest
from nnunetlike.postprocessing.determine import determine_postprocessing


def rows(golden: Path) -> list[dict[str, Any]]:
    return json.loads((golden / "arrays" / "largest_component.json").read_text())


@pytest.mark.parametrize("number", range(10))
def test_largest_components_are_those_of_v1(golden: Path, number: int) -> None:
    row = rows(golden)[number]
    sizes = row["minimum_valid_object_size"]
    with np.load(golden / "arrays" / "largest_component.npz") as arrays:
        found = keep_largest(
            arrays[f"{row['case']}_in"],
            row["for_which_classes"],
            row["volume_per_voxel"],
            None if sizes is None else {int(label): size for label, size in sizes.items()},
        )
        assert np.array_equal(found.label, arrays[f"{row['case']}_{row['variant']}"])
    assert {str(key): size for key, size in found.kept_size.items()} == row["kept_size"]
    assert {str(key): size for key, size in found.largest_removed.items()} == row["largest_removed"]


def model_folder(golden: Path, home: Path, name: str, classes: list[int]) -> Path:
    """Write predictions and references of one golden experiment as v1 lays them out."""
    with np.load(golden / "arrays" / "postprocessing.npz") as arrays:
        for number in range(3):
            for kind, folder in (("pred", "validation_raw"), ("gt", "gt")):
                voxels = arrays[f"{name}_q{number}_{kind}"]
                path = home / folder / f"q{number}.nii.gz"
                geometry = Geometry(shape=voxels.shape, spacing=(1.0, 1.0, 1.0))
                format_of(path).write_label(voxels, geometry, path)
    raw = home / "validation_raw"
    evaluate_folder(raw, home / "gt", classes, processes=1).write(raw / "summary.json")
    return home


@pytest.mark.parametrize("name", ["islands_hurt", "two_blobs_needed", "single_class"])
def test_postprocessing_is_chosen_and_applied_as_in_v1(
    golden: Path, tmp_path: Path, name: str
) -> None:
    wanted = json.loads((golden / "arrays" / "postprocessing.json").read_text())[name]
    classes = [int(label) for label in wanted["final_summary_mean"]]
    home = model_folder(golden, tmp_path, name, classes)

    determine_postprocessing(home, home / "gt", processes=1)

    content = json.loads((home / "postprocessing.json").read_text())
    assert content == wanted["postprocessing_json"]
    assert sorted(entry.name for entry in home.iterdir()) == wanted["left_over"]
    with np.load(golden / "arrays" / "postprocessing.npz") as arrays:
        for number in range(3):
            path = home / "validation_raw_postprocessed" / f"q{number}.nii.gz"
            final, _ = format_of(path).read_label(path)
            assert np.array_equal(final, arrays[f"{name}_q{number}_final"])
            assert final.dtype == np.uint8
    summary = json.loads((home / "validation_raw_postprocessed" / "summary.json").read_text())
    for label, scores in wanted["final_summary_mean"].items():
        assert summary["results"]["mean"][label] == pytest.approx(scores, abs=1e-12)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_keys_are_those_of_a_fold_that_v1_trained(
    golden: Path, tmp_path: Path, configuration: str
) -> None:
    of_v1 = json.loads((golden / "model" / f"fold_postprocessing_{configuration}.json").read_text())
    home = model_folder(golden, tmp_path, "islands_hurt", [1, 2])
    assert determine_postprocessing(home, home / "gt", processes=1).keys() == of_v1.keys()
