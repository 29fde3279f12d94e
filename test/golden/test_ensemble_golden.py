"""Ensembles against what nnU-Net v1 made of the same probabilities (golden/open/arrays)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.core.serialization import load_pickle, save_json, save_pickle
from nnunetlike.data.imageio import format_of
from nnunetlike.inference.ensemble import ensemble_folders


@pytest.fixture
def facts(golden: Path) -> dict[str, Any]:
    return json.loads((golden / "arrays" / "ensemble.json").read_text())


@pytest.fixture
def folders(golden: Path, facts: dict[str, Any], tmp_path: Path) -> list[Path]:
    """The two models' folders, with what an ensemble reads of them."""
    with np.load(golden / "arrays" / "ensemble.npz") as arrays:
        for model in ("m1", "m2"):
            (tmp_path / model).mkdir()
            for case in ("z1", "z2"):
                np.savez(tmp_path / model / f"{case}.npz", softmax=arrays[f"{case}_{model}"])
                save_pickle(facts["properties"], tmp_path / model / f"{case}.pkl")
    return [tmp_path / "m1", tmp_path / "m2"]


def tree(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_an_ensemble_with_postprocessing_is_that_of_v1(
    golden: Path, facts: dict[str, Any], folders: list[Path], tmp_path: Path
) -> None:
    save_json(facts["postprocessing"], tmp_path / "pp.json")
    out = tmp_path / "out"
    ensemble_folders(folders, out, postprocessing=tmp_path / "pp.json", save_npz=True, processes=1)
    assert tree(out) == facts["tree_with_pp"]
    with np.load(golden / "arrays" / "ensemble.npz") as arrays:
        for case in ("z1", "z2"):
            raw, geometry = format_of(out / f"{case}.nii.gz").read_label(
                out / "not_postprocessed" / f"{case}.nii.gz"
            )
            final, _ = format_of(out / f"{case}.nii.gz").read_label(out / f"{case}.nii.gz")
            assert np.array_equal(raw, arrays[f"{case}_not_postprocessed"])
            assert np.array_equal(final, arrays[f"{case}_final"])
            merged = np.load(out / "not_postprocessed" / f"{case}.npz")["softmax"]
            assert str(merged.dtype) == facts["merged_dtype"]
            assert np.array_equal(merged, arrays[f"{case}_merged_softmax"])
            assert list(geometry.origin) == facts["properties"]["itk_origin"]
            kept = load_pickle(out / "not_postprocessed" / f"{case}.pkl")
            assert len(kept) == 2 and kept[0]["crop_bbox"] == facts["properties"]["crop_bbox"]


def test_an_ensemble_without_postprocessing_is_that_of_v1(
    golden: Path, facts: dict[str, Any], folders: list[Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ensemble_folders(folders, out, processes=1)
    assert tree(out) == facts["tree_without"]
    with np.load(golden / "arrays" / "ensemble.npz") as arrays:
        for case in ("z1", "z2"):
            found, _ = format_of(out / f"{case}.nii.gz").read_label(out / f"{case}.nii.gz")
            assert np.array_equal(found, arrays[f"{case}_not_postprocessed"])
