"""From one task to another with other channels, classes and plans."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.core.serialization import save_json
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.splits import Split, save_splits
from nnunetlike.data.store import CaseStore
from nnunetlike.networks.model_files import load_model_file
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import save_plans
from nnunetlike.run.run_training import main

SHAPE = (8, 16, 16)
CASES = [f"c_{number}" for number in range(5)]
SOURCE, TARGET = "Task911_Source", "Task912_Target"
OPTIONS = (
    "--val_iterations=2", "--num_workers=0", "--seed=7", "--device=cpu", "--fp32",
    "--disable_validation_inference",
)  # fmt: skip


def _case(number: int, channels: int, classes: int) -> tuple[np.ndarray, CaseRecord]:
    """Return balls on noise: label 1 is bright in channel 0; label 2, if any, in channel 1."""
    rng = np.random.default_rng(number)
    label = np.zeros(SHAPE, np.float32)
    grid = np.indices(SHAPE)
    for value in range(1, classes + 1):
        centre = np.array([4, 4 + 7 * (value - 1), 4 + 7 * (value - 1)]) + rng.integers(0, 2, 3)
        label[((grid - centre.reshape(3, 1, 1, 1)) ** 2).sum(0) < 10] = value
    images = [rng.normal(0, 0.5, SHAPE) + 2 * (label == 1 + c) for c in range(channels)]
    record = CaseRecord(
        original_size=SHAPE, original_spacing=(1.0,) * 3, image_files=(f"c_{number}.nii.gz",),
        label_file=None, itk_origin=(0.0,) * 3, itk_spacing=(1.0,) * 3,
        itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        crop_box=tuple((0, n) for n in SHAPE), classes=tuple(float(v) for v in range(classes + 1)),
        size_after_cropping=SHAPE, use_nonzero_mask=dict.fromkeys(range(channels), False),
        size_after_resampling=SHAPE, spacing_after_resampling=(1.0,) * 3,
        class_locations={c: np.argwhere(label == c) for c in range(1, classes + 1)},
    )  # fmt: skip
    return np.stack([*images, label]).astype(np.float32), record


@pytest.fixture
def make_task(home: Path, tiny_plans: Callable[[int], Plans]) -> Callable[..., Path]:
    """Writes a preprocessed task of five cases; returns its folder."""

    def make(name: str, modalities: tuple[str, ...], labels: Mapping[int, str]) -> Path:
        dataset = home / "preprocessed" / name
        (dataset / "gt_segmentations").mkdir(parents=True)
        channels, classes = dict(enumerate(modalities)), len(labels) - 1
        plans = replace(
            tiny_plans(3), modalities=channels, classes=tuple(range(1, classes + 1)),
            normalization_schemes=dict.fromkeys(channels, "nonCT"),
            use_mask_for_norm=dict.fromkeys(channels, False),
        )  # fmt: skip
        save_plans(plans, dataset / "nnUNetPlansv2.1_plans_3D.pkl")
        store = CaseStore(dataset / plans.stage_folder(0))
        for number, case in enumerate(CASES):
            store.write(case, *_case(number, len(modalities), classes))
        save_splits([Split(tuple(CASES[:4]), tuple(CASES[4:]))], dataset / "splits_final.pkl")
        content = {
            "modality": {str(k): v for k, v in channels.items()},
            "labels": {str(k): v for k, v in labels.items()},
            "training": [{"image": f"./imagesTr/{c}.nii.gz"} for c in CASES],
        }
        save_json(content, dataset / "dataset.json")
        return dataset

    return make


def _folder(home: Path, task: str) -> Path:
    model = home / "results/nnUNet/3d_fullres" / task / "nnUNetTrainerV2__nnUNetPlansv2.1"
    return model / "fold_0"


def _train(task: str, *options: str) -> int:
    return main(["3d_fullres", "nnUNetTrainerV2", task, "0", *OPTIONS, *options])


def _losses(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if "train_loss" in event]


@pytest.fixture
def pretrained(home: Path, make_task: Callable[..., Path]) -> Path:
    """Weights of one channel and one label, trained a little; the target task is there too."""
    make_task(SOURCE, ("T1",), {0: "background", 1: "core"})
    make_task(TARGET, ("T1", "T2"), {0: "background", 1: "core", 2: "edema"})
    assert _train(SOURCE, "--epochs=6", "--iterations=10") == 0
    return _folder(home, SOURCE) / "model_final_checkpoint.model"


SHORT = ("--epochs=1", "--iterations=6")


@pytest.mark.slow
def test_from_one_channel_to_two_and_two_classes_to_three(
    home: Path, pretrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert _train(TARGET, *SHORT) == 0
    (scratch,) = _losses(_folder(home, TARGET))
    caplog.clear()
    assert _train(TARGET, *SHORT, "-pretrained_weights", str(pretrained)) == 0
    (started,) = _losses(_folder(home, TARGET))[-1:]
    text = caplog.text
    assert (
        "encoder.0       7        1        0  1 image channel(s) by name, 1 the mean of 1" in text
    )
    assert "heads.0         0        1        0  by label: background, core; others anew" in text
    assert re.search(r"tensors: 41 loaded, 3 adapted, 0 skipped.* 99\.\d% of \d+ parameters", text)
    assert started["train_loss"] < scratch["train_loss"] - 0.2, (started, scratch)
    assert started["val_loss"] < scratch["val_loss"], (started, scratch)
    said = json.loads((_folder(home, TARGET) / "debug.json").read_text())["transfer"]
    assert said["tensors"]["adapted"] == 3
    assert said["share_of_parameters"] > 0.99


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_was_also_after_going_on(
    home: Path, pretrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("-pretrained_weights", str(pretrained), "--freeze", "encoder")
    assert _train(SOURCE, "--epochs=1", "--iterations=2", *words) == 0
    folder = _folder(home, SOURCE)
    first = load_model_file(folder / "model_final_checkpoint.model").state_dict
    facts = json.loads((folder / "debug.json").read_text())
    assert facts["frozen"] == "encoder"
    assert 0 < facts["frozen_parameters"] < facts["network_parameters"]
    told = f"the encoder is frozen: {facts['frozen_parameters']} of {facts['network_parameters']}"
    assert told in caplog.text
    caplog.clear()
    assert _train(SOURCE, "--epochs=2", "--iterations=2", "-c") == 0
    assert told in caplog.text
    then = dict(load_model_file(folder / "model_final_checkpoint.model").state_dict)
    del then["seg_outputs.0.weight"]  # the deepest head has no part in the loss
    for name, value in then.items():
        is_frozen = name.startswith("conv_blocks_context")
        assert torch.equal(value, first[name]) == is_frozen, name


def test_too_little_that_fits_is_refused_with_3_after_the_table(
    pretrained: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    words = ("-pretrained_weights", str(pretrained), *SHORT)
    assert _train(TARGET, *words, "--base_num_features=6") == 3
    assert "fit 0.0% of this network, less than the 30%" in capsys.readouterr().err
    assert "encoder.0  " in caplog.text
    assert _train(TARGET, *words, "--pretrained_share", "1") == 3
    assert "or go on all the same with --pretrained_share 0.9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--freeze", "encoder"], "give them with -pretrained_weights"),
        (["--pretrained_share", "2"], "from 0 to 1"),
        (["-pretrained_weights", "x.model", "-c"], "leave out -pretrained_weights"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(TARGET, *options) == 2
    assert message in capsys.readouterr().err


def test_freezing_what_does_not_come_from_the_file_is_warned_of(
    pretrained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("-pretrained_weights", str(pretrained), "--freeze", "encoder")
    assert _train(TARGET, *SHORT, *words) == 0
    assert "not loaded as it stood in the file: encoder.0.0.conv.weight." in caplog.text


@pytest.mark.slow
def test_going_on_does_not_freeze_what_was_not(
    pretrained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _train(SOURCE, "--epochs=7", "--iterations=1", "-c", "--freeze", "encoder") == 2
    assert "began with nothing frozen" in capsys.readouterr().err
