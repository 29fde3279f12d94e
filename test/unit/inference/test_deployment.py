"""What a runtime is told of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.inference.deployment import describe_model
from nnunetlike.inference.model_bundle import load_bundle
from nnunetlike.plans.fingerprint import ChannelIntensities, IntensityStatistics
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.normalization import normalize

KNOWN = IntensityStatistics(
    median=40, mean=50, sd=20, mn=-30, mx=150, percentile_99_5=110, percentile_00_5=-10
)
SCHEMES = {0: "CT", 1: "CT2", 2: "nonCT", 3: "noNorm", 4: "to01", 5: "rgbTo01"}


@pytest.fixture
def said(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> dict[str, Any]:
    """The description of a model of six channels, one for each way to normalise."""
    plans = tiny_plans(3)
    intensities = {c: ChannelIntensities(overall=KNOWN, by_case={}) for c in (0, 1)}
    plans = replace(
        plans,
        modalities={c: f"image {c}" for c in SCHEMES},
        normalization_schemes=SCHEMES,
        use_mask_for_norm={c: c == 2 for c in SCHEMES},
        fingerprint=replace(plans.fingerprint, intensities=intensities),
    )
    bundle = load_bundle(save_tiny_model(tmp_path / "T__P", plans))
    described = describe_model(bundle, ("background", "a", "b"), channels=len(SCHEMES))
    return json.loads(json.dumps(described))  # type: ignore[no-any-return]  # a dict


def test_the_numbers_of_normalisation_are_those_that_are_used(said: dict[str, Any]) -> None:
    """A runtime that goes by the description gets what `normalize` gives."""
    image = np.random.default_rng(0).normal(50, 40, (6, 4, 5, 6)).astype(np.float32)
    label = np.zeros(image.shape[1:], np.int16)
    label[0] = -1
    found = normalize(
        image, label, schemes=SCHEMES, use_mask={c: c == 2 for c in SCHEMES},
        intensities={c: ChannelIntensities(overall=KNOWN, by_case={}) for c in (0, 1)},
    )  # fmt: skip
    for index, channel in enumerate(said["preprocessing"]["channels"]):
        told, values = channel["normalisation"], image[index].astype(float)
        assert (channel["index"], told["scheme"]) == (index, SCHEMES[index])
        if "clip" in told:
            low, high = told["clip"]
            inside = values[(values > low) & (values < high)]
            values = np.clip(values, low, high)
        if told["scheme"] == "CT":
            values = (values - told["subtract"]) / told["divide_by"]
        elif told["scheme"] == "CT2":
            assert told["of"] == "voxels strictly between the limits of `clip`"
            values = (values - inside.mean()) / inside.std()
        elif told["scheme"] == "nonCT":
            assert told["of"] == "voxels that are not background"
            values = (values - values[1:].mean()) / values[1:].std()
            assert told["outside"].startswith("0 where all channels are 0")
            values[0] = 0
        elif told["scheme"] == "to01":
            assert (told["subtract"], told["divide_by"]) == ("minimum", "maximum after that")
            values = (values - values.min()) / (values.max() - values.min())
        elif told["scheme"] == "rgbTo01":
            values = (values - told["subtract"]) / told["divide_by"]
        assert np.allclose(found[index], values, atol=1e-4), told


def test_channels_beyond_those_of_the_image_are_told(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> None:
    bundle = load_bundle(save_tiny_model(tmp_path / "T__P", tiny_plans(3)))
    second = describe_model(bundle, None, channels=3)
    assert second["input"]["shape"] == ["any", 3, 8, 16, 16]
    assert "low resolution" in second["preprocessing"]["further_channels"]
    assert [label["name"] for label in second["labels"]] == ["background", "1", "2"]
    first = describe_model(bundle, None, channels=1)
    assert "further_channels" not in first["preprocessing"]


def test_models_of_v2_tell_their_own_order_of_steps(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> None:
    bundle = load_bundle(save_tiny_model(tmp_path / "T__P", tiny_plans(3)))
    v2 = replace(bundle, plans=replace(bundle.plans, conventions="v2"), mirror_axes=(1,))
    found = describe_model(v2, None, channels=1)
    assert found["preprocessing"]["steps"] == ["crop", "transpose", "normalise", "resample"]
    assert found["preprocessing"]["orientation"] is found["back_to_the_image"]["turn"] is None
    assert found["prediction"]["combine"].startswith("the mean of logits")
    assert found["prediction"]["mirror_axes"] == [1]
    assert found["back_to_the_image"]["resampling"]["what"] == "logits"


def test_the_orientation_of_the_training_is_told(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> None:
    plans = replace(tiny_plans(3), orientation="RAS")
    bundle = load_bundle(save_tiny_model(tmp_path / "T__P", plans))
    found = describe_model(bundle, None, channels=1)
    assert found["preprocessing"]["orientation"] == "RAS"
    assert found["preprocessing"]["steps"][0] == "turn"
    assert found["back_to_the_image"]["turn"].startswith("back, last")


def test_regions_of_v2_are_told_as_such(
    tmp_path: Path, tiny_plans: Callable[[int], Plans], save_tiny_model: Callable[..., Path]
) -> None:
    bundle = load_bundle(save_tiny_model(tmp_path / "T__P", tiny_plans(3)))
    plans = replace(bundle.plans, conventions="v2", regions=(2, 1))
    found = describe_model(replace(bundle, plans=plans), None, channels=1)
    assert [(label["value"], label["name"]) for label in found["labels"]] == [(2, "2"), (1, "1")]
    assert found["output"]["shape"][1] == 2
    assert found["prediction"]["combine"].endswith("then the logistic function")
    assert "last output whose probability is above 1/2" in found["back_to_the_image"]["label"]
