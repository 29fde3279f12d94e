"""The commands that a user types, on a synthetic CT task and on a real one of MR."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.stages import AbsentError, Agreement, Arrays, Params, Stage
from benchmarks.stages import synthetic as made

TASK, DATASET = "Task101_Chain", "Dataset101_Chain"
SPACINGS = ((2.5, 0.8, 0.8), (3.0, 0.7, 0.7), (2.0, 0.9, 0.9))
LABELS = {"0": "background", "1": "organ", "2": "vessel"}
HIPPOCAMPUS = Path(__file__).resolve().parents[3] / "shared" / "data" / "Task04_Hippocampus"
HIPPOCAMPUS_LABELS = {"0": "background", "1": "Anterior", "2": "Posterior"}
PREDICTED = 10
"""Cases of the real task that are predicted."""


def write_task(folder: Path, rng: np.random.Generator, *, shape: Sequence[int], cases: int) -> None:
    """Write a raw CT task in the layouts of v1 and v2; the images are the same files."""
    v1 = _raw(folder)
    for number in range(cases):
        _case(v1, rng, number, shape)
    _describe(folder, cases, "CT", LABELS)


def write_hippocampus(folder: Path, rng: np.random.Generator, *, cases: int) -> None:
    """Write the first cases of the decathlon's Task04 likewise.

    Raises:
        AbsentError: the data are not here.
    """
    del rng
    if not HIPPOCAMPUS.is_dir():
        raise AbsentError(f"{HIPPOCAMPUS} does not exist; put the decathlon's task there")
    v1 = _raw(folder)
    labels = sorted((HIPPOCAMPUS / "labelsTr").glob("[!.]*.nii.gz"))[:cases]
    for number, label in enumerate(labels):
        shutil.copyfile(label, v1 / "labelsTr" / f"case_{number}.nii.gz")
        image = HIPPOCAMPUS / "imagesTr" / label.name
        shutil.copyfile(image, v1 / "imagesTr" / f"case_{number}_0000.nii.gz")
    _describe(folder, len(labels), "MRI", HIPPOCAMPUS_LABELS)


def _raw(folder: Path) -> Path:
    """Return v1's raw task, empty."""
    v1 = folder / "raw_v1" / "nnUNet_raw_data" / TASK
    for name in ("imagesTr", "labelsTr", "imagesTs"):
        (v1 / name).mkdir(parents=True)
    return v1


def _describe(folder: Path, cases: int, modality: str, labels: Mapping[str, str]) -> None:
    """Write dataset.json for v1, and for v2 beside links to the same images."""
    v1, v2 = folder / "raw_v1" / "nnUNet_raw_data" / TASK, folder / "raw_v2" / DATASET
    for name in ("imagesTr", "labelsTr"):
        shutil.copytree(v1 / name, v2 / name, copy_function=os.link)
    facts: dict[str, Any] = {"numTraining": cases, "labels": labels, "name": "Chain"}
    listed = [
        {"image": f"./imagesTr/case_{i}.nii.gz", "label": f"./labelsTr/case_{i}.nii.gz"}
        for i in range(cases)
    ]
    of_v1 = {"modality": {"0": modality}, "training": listed, "test": [], "numTest": 0,
             "tensorImageSize": "4D", "description": "", "reference": "", "licence": "",
             "release": ""}  # fmt: skip
    turned = {name: int(value) for value, name in labels.items()}
    of_v2 = {"channel_names": {"0": modality}, "labels": turned, "file_ending": ".nii.gz"}
    (v1 / "dataset.json").write_text(json.dumps({**facts, **of_v1}))
    (v2 / "dataset.json").write_text(json.dumps({**facts, **of_v2}))


def _case(task: Path, rng: np.random.Generator, number: int, shape: Sequence[int]) -> None:
    import SimpleITK as sitk

    label = made.labels(rng, shape, 2)
    voxels = np.round(made.image(rng, shape)[0] + 80 * label).astype(np.int16)
    for array, name in (
        (voxels, f"imagesTr/case_{number}_0000"),
        (label, f"labelsTr/case_{number}"),
    ):
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(SPACINGS[number % len(SPACINGS)][::-1])
        sitk.WriteImage(image, str(task / f"{name}.nii.gz"))


def _model(
    folder: Path, rng: np.random.Generator, *, shape: Sequence[int], cases: int,
    features: int | None = None,
) -> None:  # fmt: skip
    """Write a task, a U-Net that was trained for one step on it, and images to predict.

    Args:
        folder: gets all of it.
        rng: source of the voxels.
        shape: of each case.
        cases: how many there are; the first is to be predicted.
        features: of the finest level, in place of the planned ones.
    """
    write_task(folder, rng, shape=shape, cases=cases)
    _train(folder, predicted=1, features=features)


def _model_of_hippocampus(folder: Path, rng: np.random.Generator, *, cases: int) -> None:
    write_hippocampus(folder, rng, cases=cases)
    _train(folder, predicted=PREDICTED)


def _train(folder: Path, *, predicted: int, features: int | None = None) -> None:
    new = folder / "new"
    new.mkdir()
    for image in _images(folder)[:predicted]:
        os.link(image, new / image.name)
    environment = {
        **os.environ, "nnUNet_raw_data_base": str(folder / "raw_v1"),
        "nnUNet_preprocessed": str(folder / "ours"), "RESULTS_FOLDER": str(folder / "model"),
    }  # fmt: skip
    commands = (
        ("plan_and_preprocess", "-t", "101", "-pl2d", "None"),
        ("run_training", "3d_fullres", "nnUNetTrainerV2", "101", "all", "--epochs", "1",
         "--iterations", "1", "--val_iterations", "1", "--num_workers", "0", "--batch_size", "1",
         "--device", "cpu", "--disable_validation_inference"),
    )  # fmt: skip
    for command, *words in commands:
        subprocess.run(
            [sys.executable, "-m", f"nnunetlike.run.{command}", *words],
            env=environment, stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        if command == "plan_and_preprocess" and features is not None:
            _make_thin(folder / "ours" / TASK / "nnUNetPlansv2.1_plans_3D.pkl", features)


def _make_thin(plans: Path, features: int) -> None:
    """Write other features into plans, so that the network takes little of a prediction."""
    from nnunetlike.core.serialization import load_pickle, save_pickle

    save_pickle({**load_pickle(plans), "base_num_features": features}, plans)


def _images(folder: Path) -> list[Path]:
    return sorted((folder / "raw_v1" / "nnUNet_raw_data" / TASK / "imagesTr").iterdir())


def _prepared(ours: Arrays, theirs: Arrays) -> Agreement:
    """Compare a preprocessed case, of which the last channel is the label."""
    here, there = ours["case"], theirs["case"]
    if here.shape != there.shape:
        return Agreement(False, f"case of shape {here.shape}, not {there.shape}")
    image = float(np.abs(here[:-1] - there[:-1]).max() / np.ptp(there[:-1]))
    labels = int(np.count_nonzero(here[-1] != there[-1]))
    return Agreement(image < 1e-5 and labels == 0, f"{image:.0e} of range; {labels} labels differ")


def _predicted(ours: Arrays, theirs: Arrays) -> Agreement:
    differ = float((ours["label"] != theirs["label"]).mean())
    return Agreement(differ < 1e-3, f"{100 * differ:.4f} % of labels differ")


SMALL: Params = {"shape": (96, 256, 256), "cases": 2}
LARGE: Params = {"shape": (200, 512, 512), "cases": 2}
TINY: Params = {"shape": (24, 40, 40), "cases": 2}
THIN: Params = {**LARGE, "features": 2}
HALF: Params = {"shape": (48, 128, 128), "cases": 2}


def _preprocess(name: str, size: Params, *, default: bool) -> Stage:
    extent = "x".join(map(str, size["shape"]))
    return Stage(
        name=name, title=f"plan_and_preprocess, 2 CT cases {extent}", make=write_task,
        sizes={"full": size, "tiny": TINY}, targets={"v1": 10, "v2": 10},
        agree={"v1": _prepared}, clock="wall", once=True, peak_share=0.5, default=default,
        note="one process each; all configurations; v2's plans differ, so its arrays do",
    )  # fmt: skip


def _predict(name: str, size: Params, what: str, *, default: bool) -> Stage:
    extent = "x".join(map(str, size["shape"]))
    return Stage(
        name=name, title=f"predict, {what}, {extent}, no mirroring", make=_model,
        sizes={"full": size, "tiny": {**size, **TINY}}, targets={"v1": 1.0},
        agree={"": _predicted},
        clock="wall", once=True, default=default,
        note="the model is ours, written as v1 does, and read by v1",
    )  # fmt: skip


def _share(ours: Arrays) -> str:
    network, convolutions = (100 * float(ours[name]) for name in ("network", "convolutions"))
    return f"network {network:.0f} %, convolutions {convolutions:.0f} % of CPU time (wanted 90 %)"


STAGES = (
    _preprocess("chain_preprocess", SMALL, default=True),
    _preprocess("chain_preprocess_large", LARGE, default=False),
    _predict("chain_predict", HALF, "U-Net 3d_fullres", default=True),
    _predict("chain_predict_large", THIN, "U-Net 3d_fullres of 2 features", default=False),
    Stage(
        name="chain_hippocampus", title="plan_and_preprocess, Hippocampus, 156 MR cases",
        make=write_hippocampus, sizes={"full": {"cases": 156}, "tiny": {"cases": 4}},
        targets={"v1": 1.0, "v2": 1.0}, agree={"v1": _prepared}, clock="wall", once=True,
        note="one process each; all configurations; v2's plans differ, so its arrays do",
    ),
    Stage(
        name="chain_hippocampus_predict",
        title=f"predict, U-Net 3d_fullres, Hippocampus, {PREDICTED} cases, no mirroring",
        make=_model_of_hippocampus, sizes={"full": {"cases": 20}, "tiny": {"cases": 4}},
        targets={"v1": 1.0}, agree={"": _predicted}, clock="wall", once=True,
        note="the model is ours, written as v1 does, and read by v1",
    ),
    Stage(
        name="predict_share", title="share of the network in the time of a prediction",
        make=_model, sizes={"full": HALF, "tiny": TINY}, targets={}, agree={}, once=True,
        show=_share,
    ),
)  # fmt: skip
