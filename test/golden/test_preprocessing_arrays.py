"""Cropping, resampling and normalisation against arrays that nnU-Net v1 wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.plans.fingerprint import ChannelIntensities, IntensityStatistics
from nnunetlike.preprocessing.class_locations import sample_class_locations
from nnunetlike.preprocessing.cropping import crop_to_nonzero
from nnunetlike.preprocessing.intensities import foreground_sample, intensity_statistics
from nnunetlike.preprocessing.label_export import resampled_argmax
from nnunetlike.preprocessing.label_resampling import resample_label
from nnunetlike.preprocessing.normalization import normalize
from nnunetlike.preprocessing.resampling import resample_image, separate_axis

CLOSE = 1e-6
"""Largest error of an image, as a share of its value range."""


def load(golden: Path, name: str) -> tuple[list[dict[str, Any]], Mapping[str, np.ndarray]]:
    folder = golden / "arrays"
    return json.loads((folder / f"{name}.json").read_text()), np.load(folder / f"{name}.npz")


def error_of_range(found: np.ndarray, expected: np.ndarray, source: np.ndarray) -> float:
    assert found.shape == expected.shape and found.dtype == expected.dtype
    difference = np.abs(found.astype(np.float64) - expected).max()
    return float(difference / np.ptp(source.astype(np.float64)))


def test_cropping_gives_the_arrays_and_boxes_of_v1(golden: Path) -> None:
    rows, arrays = load(golden, "crop")
    for index, row in enumerate(rows):
        case = f"c{index}_"
        cropped = crop_to_nonzero(arrays[case + "data"], arrays[case + "seg"][0].astype(np.int16))
        np.testing.assert_array_equal(cropped.image, arrays[case + "out_data"])
        np.testing.assert_array_equal(cropped.label, arrays[case + "out_seg"][0])
        assert cropped.image.dtype == np.float32 and cropped.label.dtype == np.int16
        assert [list(side) for side in cropped.box] == row["bbox"]
        assert list(cropped.classes) == row["classes_property"]
        alone = crop_to_nonzero(arrays[case + "data"], None)
        np.testing.assert_array_equal(alone.label, arrays[case + "out_seg_noseg"][0])


def test_images_resample_to_those_of_v1(golden: Path) -> None:
    rows, arrays = load(golden, "resample_data_or_seg")
    worst = 0.0
    for row in rows:
        if row["is_seg"]:
            continue
        source = arrays[row["input"]]
        found = resample_image(
            source,
            row["new_shape"],
            order=row["order"],
            axis=row["axis"] if row["do_separate_z"] else None,
            order_z=row["order_z"] or 0,
        )
        worst = max(worst, error_of_range(found, arrays[row["key"]], source))
    assert worst < CLOSE, worst


def test_labels_resample_to_those_of_v1(golden: Path) -> None:
    rows, arrays = load(golden, "resample_data_or_seg")
    for row in rows:
        if not row["is_seg"]:
            continue
        found = resample_label(
            arrays[row["input"]][0],
            row["new_shape"],
            order=row["order"],
            axis=row["axis"] if row["do_separate_z"] else None,
            order_z=row["order_z"] or 0,
        )
        np.testing.assert_array_equal(found, arrays[row["key"]][0], err_msg=row["key"])


def test_resized_segmentations_are_those_of_v1(golden: Path) -> None:
    arrays = np.load(golden / "arrays" / "resize_segmentation.npz")
    for key in (key for key in arrays if "_to_" in key):
        name, _, rest = key.partition("_to_")
        order = int(rest.rpartition("_o")[2])
        source, expected = (a.reshape((1, *a.shape)[-3:]) for a in (arrays[name], arrays[key]))
        found = resample_label(source, expected.shape, order=order)
        np.testing.assert_array_equal(found, expected, err_msg=key)


def test_a_case_resamples_by_its_spacings_as_in_v1(golden: Path) -> None:
    rows, arrays = load(golden, "resample_patient")
    worst = 0.0
    for row in rows:
        assert row["error"] is None
        force = row["force_separate_z"]
        key = f"{row['case']}_f{force}_"
        axis = separate_axis(row["original_spacing"], row["target_spacing"], force)
        shape = row["out_shape"][1:]
        image, label = arrays[row["case"] + "_data"], arrays[row["case"] + "_seg"][0]
        found = resample_image(image, shape, order=3, axis=axis)
        worst = max(worst, error_of_range(found, arrays[key + "data"], image))
        np.testing.assert_array_equal(
            resample_label(label, shape, order=1, axis=axis), arrays[key + "seg"][0], err_msg=key
        )
    assert worst < CLOSE, worst


def as_intensities(rows: Mapping[str, Mapping[str, float]]) -> dict[int, ChannelIntensities]:
    return {
        int(channel): ChannelIntensities(
            overall=IntensityStatistics(median=0, mn=0, mx=0, **numbers), by_case={}
        )
        for channel, numbers in rows.items()
    }


def test_normalised_images_are_those_of_v1(golden: Path) -> None:
    rows, arrays = load(golden, "normalisation")
    for row in rows:
        image = np.nan_to_num(arrays[row["case"] + "_data"], nan=0.0)
        channels = range(len(image))
        label = arrays[row["case"] + "_seg"][0]
        found = normalize(
            image,
            np.where(label < -1, 0, label),
            schemes=dict.fromkeys(channels, row["scheme"]),
            use_mask=dict.fromkeys(channels, row["use_nonzero_mask"]),
            intensities=as_intensities(row["intensityproperties"]),
        )
        np.testing.assert_array_equal(found, arrays[row["case"] + "_out"], err_msg=row["case"])


def test_exported_labels_are_those_of_v1(golden: Path) -> None:
    rows, arrays = load(golden, "export")
    for row in rows:
        key = f"{row['case']}_{row['variant']}_seg"
        if key not in arrays:
            continue
        record, options = row["properties"], row["kwargs"]
        axis = separate_axis(
            record["original_spacing"],
            record["spacing_after_resampling"],
            options["force_separate_z"],
        )
        found = resampled_argmax(
            arrays[row["case"] + "_softmax"],
            record["size_after_cropping"],
            order=options["order"],
            axis=axis,
            order_z=options["interpolation_order_z"],
            regions=options.get("region_class_order"),
        )
        window = tuple(slice(*side) for side in record["crop_bbox"])
        np.testing.assert_array_equal(found, arrays[key][window], err_msg=key)


@pytest.mark.parametrize(
    "task", ["Task071_CTISO", "Task072_MRANISO", "Task073_BRAIN2", "Task074_SLICE2D"]
)
def test_the_voxels_drawn_of_each_class_are_those_of_v1(golden: Path, task: str) -> None:
    compared = 0
    for path in sorted((golden / "pipeline" / task).glob("*_stage0__class_locations.npz")):
        expected = np.load(path)
        labels = np.load(path.with_name(path.name.replace("__class_locations", "")))
        for case in {key.rpartition("__")[0] for key in expected}:
            if f"{case}__seg" not in labels:
                continue
            keys = [key for key in expected if key.startswith(f"{case}__")]
            classes = sorted(int(key.rpartition("__")[2]) for key in keys)
            found = sample_class_locations(labels[f"{case}__seg"], classes)
            assert list(found) == classes
            for value in classes:
                np.testing.assert_array_equal(
                    found[value], expected[f"{case}__{value}"].reshape(-1, 3)
                )
            compared += 1
    assert compared


def test_ct_statistics_are_those_of_v1(golden: Path) -> None:
    folder = golden / "pipeline" / "Task071_CTISO"
    expected = json.loads((folder / "intensityproperties.json").read_text())["0"]
    raw = np.load(golden / "raw" / "Task71_CTISO.npz")
    samples = []
    for case, numbers in expected["local_props"].items():
        image, label = raw[f"{case}__img0"], raw[f"{case}__seg"]
        samples.append(foreground_sample(image, label))
        assert asdict(intensity_statistics(samples[-1])) == pytest.approx(
            numbers, rel=1e-6, nan_ok=True
        )
    overall = {name: value for name, value in expected.items() if name != "local_props"}
    found = asdict(intensity_statistics(np.concatenate(samples)))
    assert found == pytest.approx(overall, rel=1e-6)
