from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.run.evaluate_folder import main


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """Arguments for two cases of 2 x 1 x 0.5 mm voxels, the second without label 2."""
    for number in range(2):
        for folder, end in (("pred", 5), ("ref", 4)):
            label = np.zeros((4, 6, 8), np.uint8)
            label[1:3, 1:end, 1:4] = 1
            label[1:3, 1:3, 6:8] = 2 * (number == 0)
            path = tmp_path / folder / f"c_{number}.nii.gz"
            geometry = Geometry(shape=label.shape, spacing=(2.0, 1.0, 0.5))
            format_of(path).write_label(label, geometry, path)
    folders = ["-ref", str(tmp_path / "ref"), "-pred", str(tmp_path / "pred")]
    return [*folders, "-l", "1", "2", "-num_processes", "0"]


def summary(tmp_path: Path) -> dict[str, dict[str, float]]:
    content = json.loads((tmp_path / "pred" / "summary.json").read_text())
    return content["results"]["mean"]


def test_metrics_asked_for_are_in_summary_table_and_csv(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "scores.csv"
    asked = ["hd95", "assd", "nsd:1", "nsd:0.25", "volume", "lesions"]
    assert main([*words, "--metrics", *asked, "--csv", str(file)]) == 0
    found = summary(tmp_path)["1"]
    assert found["Hausdorff Distance 95"] == 1.0
    assert found["Volume Difference (mL)"] == pytest.approx(0.006)  # 6 voxels of 1 mm³
    assert found["Normalised Surface Dice 1 mm"] == 1.0 > found["Normalised Surface Dice 0.25 mm"]
    assert found["Lesion F1"] == 1.0
    assert "Lesion Recall" in capsys.readouterr().out
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert [(row["case"], row["label"]) for row in rows] == [
        ("c_0", "1"), ("c_0", "2"), ("c_1", "1"), ("c_1", "2"),
        ("mean", "1"), ("mean", "2"), ("mean", "foreground"),
    ]  # fmt: skip
    assert float(rows[0]["Dice"]) == pytest.approx(2 * 18 / (18 + 24))
    assert rows[3]["Dice"] == "" and float(rows[5]["Dice"]) == 1.0


def test_without_the_option_nothing_is_added(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    assert len(summary(tmp_path)["1"]) == 13
    assert capsys.readouterr().out.splitlines()[0].split() == [
        "label", "Dice", "Jaccard", "Precision", "Recall",
    ]  # fmt: skip


def test_an_unknown_metric_is_refused_with_the_known_ones(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--metrics", "hd59"]) == 2
    assert "Did you mean 'hd95'" in capsys.readouterr().err
