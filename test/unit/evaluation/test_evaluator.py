from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.core.errors import DataError, ShapeError, UsageError
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.evaluation.evaluator import evaluate_folder, evaluate_pairs
from nnunetlike.evaluation.summary import CaseScores, Summary, read_summary


def write(path: Path, label: Any) -> Path:
    format_of(path).write_label(label, Geometry(shape=label.shape, spacing=(1.0, 1.0, 1.0)), path)
    return path


def half(shape: tuple[int, int, int] = (2, 4, 4)) -> Any:
    label = np.zeros(shape, np.uint8)
    label[:, :2] = 1
    return label


def test_files_in_one_folder_only_are_listed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "pred" / f"{name}.nii.gz", half())
    for name in ("b", "c"):
        write(tmp_path / "ref" / f"{name}.nii.gz", half())
    with pytest.raises(DataError, match=r"ref: c\.nii\.gz.*pred: a\.nii\.gz"):
        evaluate_folder(tmp_path / "pred", tmp_path / "ref", [1], processes=1)


def test_hidden_and_foreign_files_are_no_cases(tmp_path: Path) -> None:
    for folder in ("pred", "ref"):
        write(tmp_path / folder / "a.nii.gz", half())
    (tmp_path / "pred" / "._a.nii.gz").write_bytes(b"junk")
    (tmp_path / "pred" / "plans.pkl").write_bytes(b"junk")
    found = evaluate_folder(tmp_path / "pred", tmp_path / "ref", [1], processes=1)
    assert len(found.cases) == 1 and found.mean["1"]["Dice"] == 1.0


def test_pictures_are_compared_where_the_references_are_pictures(tmp_path: Path) -> None:
    for folder in ("pred", "ref"):
        write(tmp_path / folder / "a.png", half((1, 4, 4)))
    found = evaluate_folder(tmp_path / "pred", tmp_path / "ref", [1], processes=1)
    assert found.mean["1"]["Dice"] == 1.0
    write(tmp_path / "ref" / "b.nii.gz", half())
    write(tmp_path / "pred" / "b.nii.gz", half())
    found = evaluate_folder(tmp_path / "pred", tmp_path / "ref", [1], processes=1)
    assert [Path(case.reference).name for case in found.cases] == ["b.nii.gz"]


def test_different_shapes_are_refused_with_both_files(tmp_path: Path) -> None:
    pair = (
        write(tmp_path / "p.nii.gz", half()),
        write(tmp_path / "r.nii.gz", half((2, 4, 5))),
    )
    with pytest.raises(ShapeError, match=r"p\.nii\.gz against .*r\.nii\.gz"):
        evaluate_pairs([pair], [1], processes=1)


@pytest.mark.parametrize(("pairs", "labels"), [([], [1]), ([(Path("a"), Path("b"))], [])])
def test_nothing_to_score_is_refused(pairs: Any, labels: Any) -> None:
    with pytest.raises(UsageError, match="nothing to evaluate"):
        evaluate_pairs(pairs, labels, processes=1)


def test_a_region_without_a_name_is_called_by_its_labels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nii.gz", half())
    assert evaluate_pairs([(path, path)], [(1, 2), 1], processes=1).structures == ("(1, 2)", "1")


@pytest.mark.slow
def test_worker_processes_give_the_same_scores_in_the_same_order(tmp_path: Path) -> None:
    pairs = []
    for number in range(3):
        label = half()
        label[0, 0, :number] = 0
        pairs.append((write(tmp_path / f"{number}.nii.gz", label), tmp_path / "0.nii.gz"))
    alone = evaluate_pairs(pairs, [1], processes=1)
    assert evaluate_pairs(pairs, [1], processes=2) == alone


def summary(*dice_by_case: dict[str, float]) -> Summary:
    return Summary(
        tuple(
            CaseScores("p", "r", {name: {"Dice": value} for name, value in case.items()})
            for case in dice_by_case
        )
    )


def test_means_leave_out_what_is_not_defined() -> None:
    found = summary({"0": 1.0, "1": 0.5, "2": math.nan}, {"0": 1.0, "1": 0.7, "2": math.nan})
    assert found.mean["1"]["Dice"] == pytest.approx(0.6)
    assert math.isnan(found.mean["2"]["Dice"])
    assert found.foreground_mean["Dice"] == pytest.approx(0.6)


def test_the_foreground_mean_leaves_out_background() -> None:
    assert summary({"0": 1.0, "1": 0.2, "2": 0.4}).foreground_mean["Dice"] == pytest.approx(0.3)
    assert math.isnan(summary({"0": 1.0, "1": math.nan}).foreground_mean["Dice"])


def test_a_summary_survives_its_file(tmp_path: Path) -> None:
    found = summary({"1": 0.5, "2": 1.0}, {"1": 0.25, "2": 0.0})
    content = found.write(tmp_path / "summary.json", name="x val tiled True", task="Task001_X")
    assert read_summary(tmp_path / "summary.json") == found
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored == content
    assert list(stored) == sorted(stored)
    assert len(stored["id"]) == 12 and int(stored["id"], 16) >= 0
    assert stored["foreground_mean"] == {"Dice": pytest.approx(0.4375)}


def test_means_hold_labels_only_so_that_v1_reads_every_key_as_a_number() -> None:
    assert set(summary({"0": 1.0, "1": 0.5}).to_v1()["results"]["mean"]) == {"0", "1"}


def test_a_file_that_is_no_summary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text("[]")
    with pytest.raises(DataError, match="not a summary"):
        read_summary(tmp_path / "summary.json")
