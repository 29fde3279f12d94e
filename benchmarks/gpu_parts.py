"""One part of `python -m benchmarks gpu`, in its own process: PART, SETTINGS as JSON, HOME.

Rows are printed as soon as they are there, so that what comes too late takes none with it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gpu import FOLD, MARK, PLUS, TASK, UNET, Row, Settings
from benchmarks.gpu_candidates import candidates
from benchmarks.roofline import median_time
from benchmarks.stages import synthetic
from nnunetlike.core.paths import model_folder, preprocessed
from nnunetlike.core.resources import process_memory
from nnunetlike.networks import NetworkTask
from nnunetlike.plans.topology import Topology

CONFIGURATION, PLANS = "3d_fullres", "nnUNetPlansv2.1"
EPOCH = 250
"""Steps of an epoch of nnU-Net v1."""

STEPS: tuple[tuple[str, Any, dict[str, bool]], ...] = (
    ("fp32", "fp32", {"tf32": False}),
    ("tf32", "fp32", {"tf32": True}),
    ("fp16", "fp16", {}),
    ("bf16", "bf16", {}),
    ("bf16, channels last", "bf16", {"channels_last": True}),
)
COMPILED: tuple[tuple[str, Any, dict[str, bool]], ...] = (
    ("bf16, channels last, compiled", "bf16", {"channels_last": True, "compiled": True}),
    ("bf16, compiled", "bf16", {"compiled": True}),
)


def main() -> None:
    """Measure the part that the command line names."""
    part, text, home = sys.argv[1:]
    content = json.loads(text)
    settings = Settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in content.items()})
    name, *words = part.split()
    with redirect_stdout(sys.stderr):
        MEASURES[name](settings, Path(home), *words)


def give(**values: Any) -> None:
    """Print a row."""
    print(MARK + json.dumps(asdict(Row(**values))), file=sys.__stdout__, flush=True)


def peaks(settings: Settings) -> dict[str, float | None]:
    """Return the most memory that this process held, on the device and on the host."""
    on_gpu = settings.device.startswith("cuda")
    held = process_memory(os.getpid())
    return {
        "gpu_peak": torch.cuda.max_memory_allocated(settings.device) if on_gpu else None,
        "host_peak": held.peak if held else None,
    }


def task_of(settings: Settings) -> NetworkTask:
    """Return a task of one channel and two classes besides the background."""
    pools, kernels = [[2] * 3] * settings.pools, [[3] * 3] * (settings.pools + 1)
    return NetworkTask(
        channels=1, classes=3, topology=Topology.of(pools, kernels), base_features=settings.features
    )


def ceilings(settings: Settings, home: Path) -> None:
    """Products of square matrices and a copy: nothing is faster."""
    device, side = settings.device, settings.side
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    note = f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}"
    kinds = [("fp32", torch.float32, False), ("tf32", torch.float32, True),
             ("fp16", torch.float16, False), ("bf16", torch.bfloat16, False)]  # fmt: skip
    for kind, dtype, tf32 in kinds:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        seconds = median_time(lambda a=a, b=b: a @ b, device)  # type: ignore[misc]
        give(what=f"product {kind}, {side}²", seconds=seconds, ceiling=kind, note=note,
             operations_per_second=2 * side**3 / seconds)  # fmt: skip
        note = ""
    source = torch.ones(side, side, device=device)
    target = torch.empty_like(source)
    seconds = median_time(lambda: target.copy_(source), device)
    rate = 2 * source.numel() * source.element_size() / seconds
    give(what="copy", seconds=seconds, note=f"{rate / 1e9:.0f} GB/s read and written")


def steps(settings: Settings, home: Path) -> None:
    """Training steps of UNet++ on a batch that lies on the device."""
    for name, precision, ways in STEPS:
        one_step(settings, name, precision, **ways)


def compiled(settings: Settings, home: Path) -> None:
    """The same with networks that torch compiles; the first step, which does that, apart."""
    for name, precision, ways in COMPILED:
        one_step(settings, name, precision, **ways)


def one_step(
    settings: Settings,
    name: str,
    precision: Any,
    *,
    tf32: bool = True,
    channels_last: bool = False,
    compiled: bool = False,
) -> None:
    """Give the row of a kind of training step: forward, backward, clipping, update."""
    from nnunetlike.networks.arithmetic import training_operations
    from nnunetlike.training.performance import TrainingStep
    from nnunetlike.training.recipes import TRAINERS
    from nnunetlike.training.runtime import SingleProcess, seed_everything

    recipe, task, device = TRAINERS.get(PLUS), task_of(settings), torch.device(settings.device)
    seed_everything(0, deterministic=False)
    torch.backends.cudnn.allow_tf32 = tf32
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    network = recipe.network.build(task).to(device)
    if channels_last:
        network = network.to(memory_format=torch.channels_last_3d)
    if compiled:
        network = torch.compile(network)  # type: ignore[assignment]
    objective = recipe.objective.build(network, batch_dice=False)
    optimizer = recipe.optimizer.build(network.parameters())
    runtime = SingleProcess(device, precision)
    step = TrainingStep(objective, optimizer, runtime, recipe.optimizer.clip_norm)
    shape = (settings.batch, *settings.patch)
    image = torch.randn(settings.batch, 1, *settings.patch, device=device)
    if channels_last:
        image = image.to(memory_format=torch.channels_last_3d)
    label = torch.randint(0, 3, shape, device=device, dtype=torch.int16)
    batch: Any = {"image": image, "label": label, "case_ids": []}
    begin = time.perf_counter()
    step(batch)
    first = time.perf_counter() - begin
    seconds = median_time(lambda: step(batch), settings.device)
    operations = settings.batch * training_operations(recipe.network, task, settings.patch)
    kind = name.split(",")[0]
    give(what=f"UNet++ step, {name}", seconds=seconds, operations_per_second=operations / seconds,
         ceiling=kind, note=f"first step {first:.1f} s", **peaks(settings))  # fmt: skip


def write_cases(settings: Settings, home: Path) -> None:
    """Write plans and preprocessed cases; no row."""
    from nnunetlike.data.record import CaseRecord
    from nnunetlike.data.store import CaseStore
    from nnunetlike.plans.fingerprint import Fingerprint
    from nnunetlike.plans.plans import Plans, StagePlan
    from nnunetlike.plans.v1 import save_plans

    names, shape, one = [f"case_{i}" for i in range(settings.cases)], settings.case, (1.0,) * 3
    stage = StagePlan(
        spacing=one, original_spacing=one, median_shape=shape, patch_size=settings.patch,
        batch_size=settings.batch, dummy_2d_augmentation=False,
        topology=task_of(settings).topology, num_pool_per_axis=(settings.pools,) * 3,
    )  # fmt: skip
    plans = Plans(
        modalities={0: "MR"}, normalization_schemes={0: "nonCT"}, use_mask_for_norm={0: False},
        classes=(1, 2), base_features=settings.features, conv_per_stage=2,
        transpose_forward=(0, 1, 2), transpose_backward=(0, 1, 2),
        data_identifier="nnUNetData_plans_v2.1", stages={0: stage},
        preprocessor_name="GenericPreprocessor",
        fingerprint=Fingerprint(
            sizes=(shape,) * len(names), spacings=(one,) * len(names), classes=(1, 2),
            modalities={0: "MR"}, intensities=None, size_reductions=dict.fromkeys(names, 1.0),
        ),
    )  # fmt: skip
    folder = preprocessed() / TASK
    store = CaseStore(folder / plans.stage_folder(0), "npy")
    store.folder.mkdir(parents=True)
    (folder / "gt_segmentations").mkdir()
    save_plans(plans, folder / f"{PLANS}_plans_3D.pkl")
    rng = np.random.default_rng(0)
    for name in names:
        image = synthetic.image(rng, shape)
        label = synthetic.labels(rng, shape, 2)
        voxels = {c: np.argwhere(label == c)[::97] for c in (1, 2)}
        record = CaseRecord(
            original_size=shape, original_spacing=one, image_files=(), label_file=None,
            itk_origin=(0.0,) * 3, itk_spacing=one, itk_direction=tuple(np.eye(3).ravel()),
            crop_box=tuple((0, n) for n in shape), classes=(0.0, 1.0, 2.0),
            size_after_cropping=shape, class_locations=voxels,
        )  # fmt: skip
        image = (image - image.mean()) / image.std()
        store.write(name, np.concatenate([image, label[None]]).astype(np.float32), record)


def epoch(settings: Settings, home: Path, trainer: str, load: str) -> None:
    """Seconds of an epoch of 250 steps as trained, from timed steps."""
    from nnunetlike.run.run_training import main as train

    words = [CONFIGURATION, trainer, TASK, FOLD, "--device", settings.device, "--other_use=fps",
             f"--steps={settings.steps}", f"--warmup={settings.warmup}", f"--output={home}",
             "--seed=0"]  # fmt: skip
    words += ["--dummy_load"] if load == "dummy" else [f"--augment_on={load}"]
    if train(words):
        raise SystemExit(f"nnUNet_train {' '.join(words)} failed")
    found = json.loads((home / "fps.json").read_text())
    waits = found["processes"][0]["wait_s"] / found["mean_s"]
    how = {"dummy": "--dummy_load", "cpu": "real loader", "device": "--augment_on device"}[load]
    give(what=f"epoch of {trainer}, {how}", seconds=EPOCH * found["mean_s"],
         operations_per_second=found["operations_per_second"],
         ceiling=found["precision"], **peaks(settings),
         note=f"{found['precision']}, {found['workers']} workers, {waits:.1%} waiting")  # fmt: skip


def predict(settings: Settings, home: Path) -> None:
    """A case from its file to the label on its grid, mirrored views averaged."""
    import SimpleITK as sitk

    import nnunetlike.predictor as module
    from nnunetlike.run.run_training import main as train

    options = ["--epochs=1", "--iterations=1", "--val_iterations=1", "--seed=0",
               "--disable_validation_inference", "--device", settings.device]  # fmt: skip
    if train([CONFIGURATION, UNET, TASK, FOLD, *options]):
        raise SystemExit("no model could be trained")
    model = model_folder(CONFIGURATION, TASK, UNET, PLANS)
    predictor = module.Predictor.from_folder(model, [FOLD], device=settings.device)
    torch.backends.cudnn.benchmark = True
    spent = {"network": 0.0}
    whole = module.mean_over_folds
    module.mean_over_folds = _timed(whole, spent)
    rng = np.random.default_rng(1)
    for name, shape in (("first", settings.patch), ("second", settings.image)):
        image = sitk.GetImageFromArray(synthetic.image(rng, shape)[0].astype(np.int16))
        image.SetSpacing((0.8, 0.8, 1.0))
        path = home / f"{name}.nii.gz"
        sitk.WriteImage(image, str(path))
        if settings.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(settings.device)
        spent["network"] = 0.0
        begin = time.perf_counter()
        predictor.predict(path)
        seconds = time.perf_counter() - begin
    extent = " x ".join(map(str, reversed(settings.image)))
    give(what=f"U-Net predicts {extent}, file to labels", seconds=seconds, **peaks(settings),
         note=f"windows and their copy to the host {spent['network'] / seconds:.1%}")  # fmt: skip


def _timed(call: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    def timed(*words: Any) -> Any:
        begin = time.perf_counter()
        found = call(*words)
        spent["network"] += time.perf_counter() - begin
        return found

    return timed


MEASURES: dict[str, Callable[..., None]] = {
    "task": write_cases,
    "ceilings": ceilings,
    "steps": steps,
    "compiled": compiled,
    "epoch": epoch,
    "predict": predict,
    "candidates": partial(candidates, give=give),
}

if __name__ == "__main__":
    main()
