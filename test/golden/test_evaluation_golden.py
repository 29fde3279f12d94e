"""Scores against numbers that nnU-Net v1's evaluator wrote (golden/open/arrays/evaluation*)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.evaluation.evaluator import evaluate_folder, evaluate_pairs
from nnunetlike.evaluation.summary import add_foreground_mean, read_summary

SPACINGS = ((2.0, 0.8, 1.0), (3.0, 0.7, 0.7), (1.0, 1.0, 1.0), (1.0, 1.0, 1.0))
"""The golden files do not store the spacing; the first two are the ones their distances tell."""


@pytest.fixture(scope="module")
def folders(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Prediction and reference folders of the four golden pairs."""
    home = tmp_path_factory.mktemp("pairs")
    with np.load(golden / "arrays" / "evaluation.npz") as arrays:
        for number, spacing in enumerate(SPACINGS):
            for kind in ("pred", "gt"):
                voxels = arrays[f"case_{number}_{kind}"]
                path = home / kind / f"case_{number}.nii.gz"
                geometry = Geometry(shape=voxels.shape, spacing=spacing)
                format_of(path).write_label(voxels, geometry, path)
    return home / "pred", home / "gt"


def expected(golden: Path, name: str) -> dict[str, Any]:
    return json.loads((golden / "arrays" / name).read_text())


def agree(found: Any, wanted: Any, tolerance: float) -> None:
    """Compare nested scores, paths by file name, NaN with the text NaN."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            agree(found[key], wanted[key], 1e-6 if key == "Hausdorff Distance 95" else tolerance)
    elif isinstance(wanted, list):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            agree(one, other, tolerance)
    elif wanted == "NaN":
        assert math.isnan(found)
    elif isinstance(wanted, str):
        assert Path(found).name == wanted
    else:
        assert found == pytest.approx(wanted, abs=tolerance, rel=0)
        assert isinstance(found, type(wanted))


def keys_from_results(text: str) -> list[str]:
    """Return indentation and key of every line from `results` on."""
    return [line.partition(":")[0] for line in text[text.index('"results"') :].splitlines()]


def test_labels_score_as_in_v1(golden: Path, folders: tuple[Path, Path]) -> None:
    pairs = [(folders[0] / f"case_{n}.nii.gz", folders[1] / f"case_{n}.nii.gz") for n in range(4)]
    wanted = expected(golden, "evaluation_summary_labels0-3.json")
    found = evaluate_pairs(pairs, [0, 1, 2, 3], processes=1)
    agree(found.to_v1()["results"], wanted["results"], 1e-12)


def test_foreground_mean_is_added_where_v1_adds_it(
    golden: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    wanted = expected(golden, "evaluation_summary_after_foreground_mean.json")
    path = tmp_path / "summary.json"
    evaluate_folder(*folders, [0, 1, 2, 3], processes=1).write(path)
    add_foreground_mean(path)
    found = json.loads(path.read_text())
    agree(found["results"], wanted["results"], 1e-12)
    agree(found["foreground_mean"], wanted["results"]["mean"]["mean"], 1e-12)


def test_folders_score_as_in_v1(golden: Path, folders: tuple[Path, Path]) -> None:
    wanted = expected(golden, "evaluation_summary_evaluate_folder.json")
    found = evaluate_folder(*folders, [1, 2, 3], processes=1)
    agree(found.to_v1()["results"], wanted["results"], 1e-12)


def test_regions_score_as_in_v1(golden: Path, folders: tuple[Path, Path]) -> None:
    wanted = expected(golden, "evaluation_summary_regions.json")
    regions = {(1, 2, 3): "whole", (2, 3): "core", (3,): "three"}
    found = evaluate_folder(*folders, regions, processes=1)
    agree(found.to_v1()["results"], wanted["results"], 1e-12)


def test_hausdorff_distance_is_that_of_v1(golden: Path, folders: tuple[Path, Path]) -> None:
    pairs = [(folders[0] / f"case_{n}.nii.gz", folders[1] / f"case_{n}.nii.gz") for n in (0, 1)]
    wanted = expected(golden, "evaluation_summary_advanced_hd95.json")
    found = evaluate_pairs(pairs, [1, 2], processes=1, advanced=True)
    agree(found.to_v1()["results"], wanted["results"], 1e-12)


def test_summary_file_has_the_form_of_v1(
    golden: Path, folders: tuple[Path, Path], tmp_path: Path
) -> None:
    path = tmp_path / "summary.json"
    found = evaluate_folder(*folders, [0, 1, 2, 3], processes=1)
    found.write(path, name="trainer val tiled True")
    head = (golden / "arrays" / "evaluation_summary_raw_text_head.txt").read_text()
    wanted = keys_from_results(head)[:-1]
    assert keys_from_results(path.read_text())[: len(wanted)] == wanted
    assert "NaN" in path.read_text()
    assert read_summary(path).mean.keys() == found.mean.keys()


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_validation_summaries_of_v1_are_read(
    golden: Path, configuration: str, tmp_path: Path
) -> None:
    path = golden / "model" / f"validation_summary_{configuration}.json"
    content = json.loads(path.read_text().replace('"NaN"', "NaN"))
    copy = tmp_path / "summary.json"
    copy.write_text(json.dumps(content))
    own = read_summary(copy).to_v1(name=content["name"], task=content["task"])
    assert own.keys() - {"foreground_mean"} == content.keys()
    for name, scores in content["results"]["mean"].items():
        assert own["results"]["mean"][name] == pytest.approx(scores, abs=1e-12, nan_ok=True)
