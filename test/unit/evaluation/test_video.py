"""Videos in evaluation: per frame, per case, over cases, and summary.json."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.summary import read_summary
from nnunetlike.evaluation.video import VideoSummary, evaluate_videos
from nnunetlike.evaluation.video_case import area_jitter, temporal_scores

IGNORE = 3
NAMES = {0: "background", 1: "LV", 2: "MYO", 3: "ignore"}


def write(path: Path, label: Any, spacing: tuple[float, float] = (1.0, 1.0)) -> Path:
    geometry = Geometry(shape=label.shape, spacing=(1.0, *spacing))
    format_of(path).write_label(np.asarray(label, np.uint8), geometry, path)
    return path


def facts(patient: str = "p", labelled: Sequence[int] = (0, 1), **more: Any) -> VideoFacts:
    given = {"ed": 0, "es": 1, "view": "4CH", **more}
    return VideoFacts(patient=patient, labelled_frames=tuple(labelled), **given)


class Task:
    """Predictions and references of a few videos."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pairs: list[tuple[Path, Path]] = []
        self.facts: dict[str, VideoFacts] = {}

    def add(
        self, case: str, prediction: Any, reference: Any, known: VideoFacts | None = None,
        spacing: tuple[float, float] = (1.0, 1.0),
    ) -> None:  # fmt: skip
        name = f"{case}.nii.gz"
        self.pairs.append(
            (
                write(self.folder / "pred" / name, prediction, spacing),
                write(self.folder / "ref" / name, reference, spacing),
            )
        )
        self.facts[case] = known or facts(case)

    def evaluate(self, **options: Any) -> VideoSummary:
        given = {"ignore": IGNORE, "names": NAMES, "processes": 0, "title": "", **options}
        return evaluate_videos(self.pairs, self.facts, [0, 1, 2], **given)

    def content(self, **options: Any) -> dict[str, Any]:
        return self.evaluate(**options).to_json()


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return Task(tmp_path)


def blank(frames: int = 2, size: tuple[int, int] = (16, 16), value: int = 0) -> Any:
    return np.full((frames, *size), value, np.uint8)


def box(frames: int = 2, rows: slice = slice(2, 6), columns: slice = slice(2, 6)) -> Any:
    label = blank(frames)
    label[:, rows, columns] = 1
    return label


def set_dice(a: Any, b: Any) -> float:
    """Dice from sets of pixels."""
    ours, theirs = ({tuple(p) for p in np.argwhere(mask)} for mask in (a, b))
    return 2 * len(ours & theirs) / (len(ours) + len(theirs))


def test_22_e1_dice_is_that_of_sets_and_not_the_average_of_rows(task: Task) -> None:
    y, x = np.mgrid[:256, :256] - 128.0
    reference = (y / 70) ** 2 + (x / 45) ** 2 < 1  # 45 % of the rows are empty
    prediction = (y / 70) ** 2 + (x / 33) ** 2 < 1
    rows_empty = 1 - (reference | prediction).any(axis=1).mean()
    assert 0.43 < rows_empty < 0.47
    task.add("a", prediction[None], reference[None], facts("a", (0,), ed=None, es=None))
    found = task.content()
    exact = set_dice(prediction, reference)
    size = prediction.sum(axis=1) + reference.sum(axis=1)
    by_row = np.where(size, 2 * (prediction & reference).sum(axis=1) / np.maximum(size, 1), 1)
    assert abs(by_row.mean() - exact) > 0.05  # what upstream's evaluator would say
    scores = found["results"]["all"][0]["1"]
    assert scores["Dice"] == pytest.approx(exact, abs=1e-12)
    assert scores["Jaccard"] == pytest.approx(exact / (2 - exact), abs=1e-12)
    frame = found["per_frame"][0]["1"]
    assert frame["IoU"] == pytest.approx(frame["Dice"] / (2 - frame["Dice"]), abs=1e-12)


def test_a_case_is_the_mean_over_its_labelled_frames_and_counts_are_sums(task: Task) -> None:
    reference, prediction = box(4), box(4)
    prediction[1, 2:6, 2:6] = 0
    prediction[1, 2:6, 4:8] = 1  # half: Dice 0.5, IoU 1/3
    prediction[3] = 1  # not labelled
    reference[2:] = IGNORE
    task.add("a", prediction, reference)
    found = task.content()["results"]["all"][0]["1"]
    assert found["Dice"] == pytest.approx((1 + 0.5) / 2)
    assert found["Jaccard"] == pytest.approx((1 + 1 / 3) / 2)
    assert found["Precision"] == found["Recall"] == pytest.approx((1 + 0.5) / 2)
    assert (found["Total Positives Reference"], found["Total Positives Test"]) == (32, 32)


def test_v2_keys_hold_the_same_dice_and_summed_counts(task: Task) -> None:
    prediction = box()
    prediction[1, 2:6, 2:4] = 0
    task.add("a", prediction, box())
    found = task.content()
    scores = found["metric_per_case"][0]["metrics"]["1"]
    assert scores == {
        "Dice": pytest.approx((1 + 2 / 3) / 2), "IoU": pytest.approx(0.75), "TP": 24, "FP": 0,
        "FN": 8, "TN": 2 * 256 - 32, "n_pred": 24, "n_ref": 32,
    }  # fmt: skip
    assert found["mean"]["1"] == scores
    assert found["foreground_mean"]["IoU"] == pytest.approx(0.75)
    assert found["foreground_mean"]["Jaccard"] == pytest.approx(0.75)


def test_ignored_pixels_are_in_no_count_and_no_outline(task: Task) -> None:
    reference, prediction = box(), box()
    reference[:, 8:] = IGNORE
    prediction[:, 8:] = 1  # rubbish where there is no label
    task.add("a", prediction, reference)
    found = task.content()
    scores = found["results"]["all"][0]["1"]
    assert (scores["Dice"], scores["Total Positives Test"], scores["Accuracy"]) == (1, 32, 1)
    assert found["metric_per_case"][0]["metrics"]["1"]["TN"] == 2 * (8 * 16 - 16)
    assert found["surface"]["1"]["HD95"] == 0


def test_edes_scores_end_diastole_and_end_systole_only(task: Task) -> None:
    prediction = box(4)
    prediction[1] = 0
    task.add("a", prediction, box(4), facts("a", range(4), ed=3, es=0))
    assert task.content()["results"]["all"][0]["1"]["Dice"] == 0.75
    found = task.content(supervision="edes")
    assert found["results"]["all"][0]["1"]["Dice"] == 1.0
    assert [row["frame"] for row in found["per_frame"]] == [0, 3]
    assert found["temporal"]["1"]["n_pairs"] == 3  # steadiness still takes every labelled frame


def test_23_a_structure_absent_from_both_is_not_applicable_and_counted(task: Task) -> None:
    reference, prediction = box(), box()
    reference[0] = prediction[0] = 0
    task.add("a", prediction, reference)
    found = task.content()
    assert found["results"]["all"][0]["1"]["Dice"] == 1.0  # of the frame that has it
    assert math.isnan(found["per_frame"][0]["1"]["Dice"])
    assert math.isnan(found["per_frame"][0]["1"]["HD95"])
    assert found["surface"]["1"]["n_both_empty"] == 1
    assert (found["n_both_empty"], found["n_one_empty"]) == (3, 0)  # label 2 is nowhere
    assert math.isnan(found["results"]["mean"]["2"]["Dice"])


def test_23_e14_a_structure_absent_from_one_is_0_and_a_diagonal_away(task: Task) -> None:
    prediction = box()
    prediction[1] = 0
    task.add("a", prediction, box(), spacing=(2.0, 1.0))
    found = task.content()
    frame = found["per_frame"][1]["1"]
    assert (frame["Dice"], frame["IoU"]) == (0, 0)
    assert frame["HD95"] == frame["ASD"] == pytest.approx(math.hypot(32, 16))
    assert found["n_one_empty"] == found["surface"]["1"]["n_one_empty"] == 1
    assert found["surface"]["1"]["HD95"] == pytest.approx(math.hypot(32, 16) / 2)


@pytest.mark.parametrize(("shift", "hd95"), [((10, 0), 5.0), ((0, 10), 2.5)])
def test_20_distances_are_in_mm_of_the_files_own_spacing(
    task: Task, shift: tuple[int, int], hd95: float
) -> None:
    reference, prediction = blank(2, (60, 80)), blank(2, (60, 80))
    reference[:, 20:40, 20:40] = 1
    prediction[:, 20 + shift[0] : 40 + shift[0], 20 + shift[1] : 40 + shift[1]] = 1
    task.add("a", prediction, reference, facts("a", ed=1, es=0), spacing=(0.5, 0.25))
    found = task.content()
    assert found["surface"]["unit"] == "mm"
    assert found["surface"]["1"]["HD95"] == pytest.approx(hd95, abs=1e-6)
    assert task.content(unit="px")["surface"]["1"]["HD95"] == pytest.approx(10)


def test_distances_are_in_pixels_where_one_spacing_is_not_known(task: Task) -> None:
    task.add("a", box(), box(), spacing=(0.5, 0.5))
    task.add("b", box(), box(columns=slice(3, 7)), facts("b", spacing_known=False), (0.5, 0.5))
    found = task.content()
    assert found["surface"]["unit"] == "px" and found["per_frame"][2]["1"]["HD95"] == 1
    with pytest.raises(DataError, match="spacing of b is not known"):
        task.evaluate(unit="mm")


def test_phases_and_views_are_means_over_their_frames_and_cases(task: Task) -> None:
    half = box()
    half[1, 2:6, 4:6] = 0  # Dice 2/3 in frame 1
    task.add("a", half, box(), facts("a", ed=0, es=1, view="4CH"))
    task.add("b", half, box(), facts("b", ed=1, es=0, view="2CH"))
    task.add("c", box(), box(), facts("c", ed=1, es=0, view="4CH"))
    found = task.content()
    assert found["phases"]["ED"]["1"]["Dice"] == pytest.approx((1 + 2 / 3 + 1) / 3)
    assert found["phases"]["ES"]["1"]["Dice"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert list(found["views"]) == ["2CH", "4CH"]
    assert found["views"]["4CH"]["mean"]["Dice"] == pytest.approx((5 / 6 + 1) / 2)
    assert (found["views"]["2CH"]["n_cases"], found["views"]["4CH"]["n_frames"]) == (1, 4)


def test_the_temporal_error_by_hand() -> None:
    reference, prediction = np.zeros((2, 4, 4, 4), bool)
    reference[:, 0] = True  # steady: Dice 1 from each frame to the next
    prediction[0, 0] = prediction[1, 0] = prediction[2, 1] = True
    prediction[3, 1, :2] = True
    # Dice of predictions: 1, 0, 2 x 2 / (4 + 2); errors 0, 1, 1/3.
    found = temporal_scores(prediction, reference, np.ones_like(reference), [0, 1, 2, 3])
    assert found.matching_error == pytest.approx((0 + 1 + 1 / 3) / 3)
    assert found.n_pairs == 3
    # Areas 4, 4, 4, 2: second differences 0 and -2, mean area 3.5.
    assert found.jitter == pytest.approx(1 / 3.5)
    assert found.jitter_reference == 0


def test_frames_without_the_structure_are_steady_and_count_only_if_one_side_has_it() -> None:
    reference, prediction = np.zeros((2, 3, 4, 4), bool)
    prediction[2, 0] = True
    found = temporal_scores(prediction, reference, np.ones_like(reference), [0, 1, 2])
    assert (found.n_pairs, found.matching_error) == (1, 1.0)  # Dice(full, empty) 0 against 1
    none = temporal_scores(reference, reference, np.ones_like(reference), [0])
    assert none.n_pairs == 0 and math.isnan(none.matching_error) and math.isnan(none.jitter)


def test_jitter_takes_triples_of_known_areas() -> None:
    assert area_jitter(np.array([1.0, 2.0, 3.0, 4.0])) == 0
    assert area_jitter(np.array([2.0, 4.0, 2.0])) == pytest.approx(4 / (8 / 3))
    assert area_jitter(np.array([2.0, 4.0, 2.0, math.nan, 4.0, 4.0])) == pytest.approx(4 / 3.2)
    assert math.isnan(area_jitter(np.array([1.0, 2.0])))
    assert math.isnan(area_jitter(np.zeros(5)))


def beating(*minor: float) -> Any:
    y, x = np.mgrid[:64, :64] - 31.7
    return np.stack([(y / 22) ** 2 + (x / b) ** 2 < 1 for b in minor]).astype(np.uint8)


def test_the_clinical_block_compares_ejection_fractions_of_masks_and_with_the_stated(
    task: Task,
) -> None:
    for number, (ours, theirs) in enumerate(((10, 9), (8, 9), (9, 9))):
        task.add(f"p{number}", beating(14, ours), beating(14, theirs), facts(f"p{number}", ef=55.0))
    task.add("q", beating(14, 9) * 0, beating(14, 9), facts("q"))
    found = task.content()["clinical"]
    assert (found["method"], found["n"], found["n_failed"]) == ("single_plane_discs_20", 3, 1)
    assert found["bias"] == pytest.approx(-100 * (100 + 64 - 2 * 81) / 14**2 / 3, abs=1)
    assert found["loa"][0] < found["bias"] < found["loa"][1]
    assert found["stated"]["n"] == 3
    assert found["methods"]["area_length"]["n"] == 3
    assert found["methods"]["biplane_discs_20"]["n"] == 0
    assert found["values"][3]["failure"] == "prediction: no cavity at ED, frame 0"
    assert found["values"][2]["predicted"] == found["values"][2]["reference"]


def test_two_views_of_a_patient_are_compared_by_the_biplane_method(task: Task) -> None:
    for patient, ours in (("p", 9), ("q", 8)):
        for view in ("2CH", "4CH"):
            task.add(
                f"{patient}_{view}", beating(14, ours), beating(14, 9), facts(patient, view=view)
            )
    found = task.content()["clinical"]
    assert (found["method"], found["n"]) == ("biplane_discs_20", 2)
    assert [value["id"] for value in found["values"]] == ["p", "q"]
    assert found["methods"]["single_plane_discs_20"]["n"] == 4
    assert found["mae"] == pytest.approx(100 * (81 - 64) / 14**2 / 2, abs=1.5)


def test_labels_that_are_no_ventricle_have_no_ejection_fraction(task: Task) -> None:
    task.add("a", box(), box())
    found = task.content(names={0: "background", 1: "RV", 2: "LA", 3: "LV"})
    assert found["clinical"]["n"] == found["clinical"]["n_failed"] == 0


def noisy(task: Task, cases: int = 6) -> None:
    rng = np.random.default_rng(3)
    for number in range(cases):
        reference = beating(14, 12, 9)
        prediction = np.where(rng.random(reference.shape) < 0.05, 1 - reference, reference)
        labelled = (0, 2) if number % 2 else (0, 1, 2)
        reference[[t for t in range(3) if t not in labelled]] = IGNORE
        known = facts(f"p{number // 2}", labelled, ed=0, es=2, view=f"{2 + 2 * (number % 2)}CH")
        task.add(f"c{number}", prediction, reference, known)


def comparable(content: dict[str, Any]) -> str:
    kept = {k: v for k, v in content.items() if k not in ("timestamp", "id")}
    return json.dumps(kept, sort_keys=True)


@pytest.mark.slow
def test_26_scores_do_not_depend_on_the_number_of_processes(task: Task) -> None:
    noisy(task)
    assert comparable(task.content()) == comparable(task.content(processes=2))


def test_26_e9_means_do_not_depend_on_the_order_of_cases(task: Task) -> None:
    noisy(task)
    first = task.content()
    task.pairs = task.pairs[3:] + task.pairs[:3][::-1]
    second = task.content()
    for key in set(first) - {"timestamp", "id", "results", "per_frame", "metric_per_case"}:
        np.testing.assert_equal(second[key], first[key], err_msg=key)
    np.testing.assert_equal(second["results"]["mean"], first["results"]["mean"])


def test_e9_the_mean_is_over_cases_and_not_over_means_of_groups(task: Task) -> None:
    empty = box() * 0
    for number, prediction in enumerate((box(), box(), empty)):
        task.add(f"c{number}", prediction, box())
    assert task.content()["results"]["mean"]["1"]["Dice"] == 2 / 3  # not the mean of (1, 0)


def test_e9_a_case_that_is_given_twice_is_refused(task: Task) -> None:
    task.add("a", box(), box())
    task.pairs *= 2
    with pytest.raises(UsageError, match="given twice: a"):
        task.evaluate()


def test_the_summary_has_v1s_shape_and_all_blocks(task: Task) -> None:
    noisy(task, 2)
    path = task.folder / "pred" / "summary.json"
    stored = task.evaluate().write(path, name="GDKVMTrainer val tiled True", task="Task027_C")
    np.testing.assert_equal(json.loads(path.read_text()), stored)
    assert {"name", "description", "timestamp", "task", "author", "results", "id"} < set(stored)
    assert set(stored["results"]["all"][0]) == {"0", "1", "2", "reference", "test"}
    blocks = (
        "foreground_mean", "mean", "metric_per_case", "per_frame", "phases", "views", "surface",
        "temporal", "clinical", "n_both_empty", "n_one_empty", "patient_bootstrap_ci",
    )  # fmt: skip
    assert set(blocks) < set(stored)
    numbers = ("method", "n", "n_failed", "mae", "rmse", "r", "r2", "bias", "sd", "loa")
    assert set(numbers) < set(stored["clinical"])
    assert set(stored["per_frame"][0]["1"]) == {"Dice", "IoU", "HD95", "ASD"}
    low, high = stored["patient_bootstrap_ci"]["1"]
    assert low <= stored["mean"]["1"]["Dice"] <= high
    assert stored["patient_bootstrap_ci"]["n_patients"] == 1
    reread = read_summary(path)  # as v1's readers do
    np.testing.assert_equal(reread.mean, stored["results"]["mean"])


def test_a_summary_without_a_labelled_frame_is_nan_and_written(task: Task) -> None:
    task.add("a", box(), blank(value=IGNORE), facts("a", (), ed=None, es=None, view=None))
    found = task.content()
    assert math.isnan(found["results"]["mean"]["1"]["Dice"])
    assert found["per_frame"] == [] and found["views"] == {}
    assert math.isnan(found["patient_bootstrap_ci"]["mean"][0])


def test_e13_label_frames_that_are_not_there_are_refused_by_case(task: Task) -> None:
    task.add("a", box(), box(), facts("a", (0, 5)))
    with pytest.raises(DataError, match=r"a: frames 5 are said to be labelled.* has 2 frames"):
        task.evaluate()


def test_frames_called_labelled_that_hold_no_label_are_refused(task: Task) -> None:
    reference = box()
    reference[1] = IGNORE
    task.add("a", box(), reference)
    with pytest.raises(DataError, match=r"frames 1 are said .* holds only 3, ignored"):
        task.evaluate()


def test_frame_counts_that_differ_are_refused_with_both_files(task: Task) -> None:
    task.add("a", box(3), box(2))
    with pytest.raises(DataError, match=r"pred/a.*against.*ref/a.*\(3, 16, 16\) pixels \(T, H, W"):
        task.evaluate()


def test_facts_that_are_missing_and_nothing_to_do_are_refused(task: Task) -> None:
    with pytest.raises(UsageError, match="nothing to evaluate"):
        task.evaluate()
    task.add("a", box(), box())
    task.facts = {}
    with pytest.raises(DataError, match=r"nothing is known of a \(1 of 1 cases\)"):
        task.evaluate()


def test_facts_of_other_cases_do_no_harm(task: Task) -> None:
    task.add("a", box(), box())
    task.facts["b"] = replace(task.facts["a"], spacing_known=False)
    assert task.content()["surface"]["unit"] == "mm"
