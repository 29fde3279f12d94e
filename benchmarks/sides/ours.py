"""Ours: public functions of nnunetlike, one thread."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

DISTRIBUTIONS = ("nnunetlike", "torch", "numpy", "scipy", "numba", "simpleitk")
Call = Callable[[], Any]


def read(folder: Path, *names: str) -> list[Any]:
    """Return the parameters of a stage and arrays of its inputs."""
    return [
        json.loads((folder / "params.json").read_text()),
        *(np.load(folder / f"{name}.npy") for name in names),
    ]


def limits() -> dict[str, float]:
    """What one thread of this machine can do."""
    import torch

    from benchmarks import machine

    torch.set_num_threads(1)
    return machine.limits()


def resample_image(folder: Path) -> Call:
    """Cubic splines along all axes."""
    from nnunetlike.preprocessing.resampling import resample_image

    params, image = read(folder, "image")
    return lambda: resample_image(image, params["new"])


def resample_separate(folder: Path) -> Call:
    """Cubic splines in the slices, nearest neighbour across them."""
    from nnunetlike.preprocessing.resampling import resample_image

    params, image = read(folder, "image")
    return lambda: resample_image(image, params["new"], axis=0)


def resample_label(folder: Path) -> Call:
    """Linear interpolation of the masks."""
    from nnunetlike.preprocessing.label_resampling import resample_label

    params, label = read(folder, "label")
    return lambda: resample_label(label, params["new"])


def export(folder: Path) -> Call:
    """Probabilities to a label map on another grid."""
    from nnunetlike.preprocessing.label_export import resampled_argmax

    params, values = read(folder, "values")
    return lambda: resampled_argmax(values, params["new"])


def crop(folder: Path) -> Call:
    """Box around what is not zero, holes filled."""
    from nnunetlike.preprocessing.cropping import crop_to_nonzero

    _, image, label = read(folder, "image", "label")

    def call() -> Mapping[str, Any]:
        found = crop_to_nonzero(image, label)
        return {"image": found.image, "label": found.label, "box": found.box}

    return call


def fingerprint(folder: Path) -> Call:
    """Statistics of the foreground of one channel."""
    from nnunetlike.preprocessing.intensities import (
        foreground_sample,
        intensity_statistics,
    )

    _, image, label = read(folder, "image", "label")

    def call() -> Mapping[str, Any]:
        found = intensity_statistics(foreground_sample(image[0], label))
        names = ("median", "mean", "mn", "mx", "percentile_99_5", "percentile_00_5")
        return {name: getattr(found, name) for name in names}

    return call


def class_locations(folder: Path) -> Call:
    """Voxels of every class, drawn by v1's random numbers."""
    from nnunetlike.preprocessing.class_locations import sample_class_locations

    params, label = read(folder, "label")
    classes = range(1, params["labels"] + 1)
    return lambda: {str(k): v for k, v in sample_class_locations(label, classes).items()}


def dice(folder: Path) -> Call:
    """Dice of every label."""
    return _scores(folder, "Dice", lambda params: range(1, params["labels"] + 1))


def hd95(folder: Path) -> Call:
    """HD95 of one label, in mm."""
    return _scores(folder, "Hausdorff Distance 95", lambda _: [1])


def _scores(folder: Path, metric: str, labels_of: Callable[[Any], Any]) -> Call:
    from nnunetlike.evaluation.confusion import confusion
    from nnunetlike.evaluation.evaluator import score_case  # noqa: F401, PLC0415 - registers all
    from nnunetlike.evaluation.metrics import METRICS, Comparison

    params, reference, prediction = read(folder, "reference", "prediction")
    labels, spacing = list(labels_of(params)), (1.0, 1.0, 1.0)
    measure = METRICS.get(metric).measure

    def call() -> Mapping[str, Any]:
        matrix = confusion(reference, prediction, labels)
        return {
            str(label): measure(
                Comparison(matrix.counts([label]), (label,), prediction, reference, spacing)
            )
            for label in labels
        }

    return call


def read_image(folder: Path) -> Call:
    """Voxels of a .nii.gz as float32."""
    from nnunetlike.data.imageio import format_of

    path = folder / "image.nii.gz"
    return lambda: format_of(path).read([path])[0]


def write_label(folder: Path) -> Call:
    """A label map as .nii.gz, on the grid of its image."""
    from nnunetlike.data.imageio import format_of

    like, out = folder / "image.nii.gz", folder / "written_by_us.nii.gz"
    (label,) = read(folder, "label")[1:]
    kind = format_of(out)
    _, geometry = kind.read([like])

    def call() -> Mapping[str, Any]:
        kind.write_label(label, geometry, out, like=like)
        return {}

    return call


def patch(folder: Path) -> Call:
    """A patch of 128 voxels per side, image and label, of a stored case."""
    from nnunetlike.data.store import CaseStore

    params = read(folder)[0]
    store = CaseStore(folder / "ours")
    store.unpack("case")
    window = tuple(slice(a, a + params["patch"]) for a in params["start"])

    def call() -> Mapping[str, Any]:
        data = store.load("case")
        found = np.array(data[(slice(None), *window)])
        return {"image": found[:-1], "label": found[-1].astype(np.int16)}

    return call


def spatial(folder: Path) -> Call:
    """A patch turned and scaled, image cubic, label linear."""
    from nnunetlike.training.augmentation.spatial import Affine, resample

    params, image, label = read(folder, "image", "label")
    affine = Affine(tuple(params["angles"]), params["scale"])

    def call() -> Mapping[str, Any]:
        found, wanted = resample(image, label, affine, tuple(params["patch"]))
        return {"image": found, "label": np.maximum(wanted, 0)}

    return call


def augment(folder: Path) -> Call:
    """Every change at once: spatial, noise, blur, brightness, contrast, low resolution, gammas."""
    from nnunetlike.training.augmentation import policies
    from nnunetlike.training.augmentation.spatial import resample

    params, image, label = read(folder, "image", "label")
    limits = ((-0.5236, 0.5236),) * 3
    always = {
        name: 1.0
        for name in policies.AugmentationPolicy.__dataclass_fields__
        if name.endswith("probability") and name != "mirror_probability"
    }
    policy = policies.AugmentationPolicy(angles=limits, mirror_axes=(0, 1, 2), **always)
    rng = np.random.default_rng(0)

    def call() -> Mapping[str, Any]:
        changes = policies.draw(policy, len(image), rng)
        assert changes.affine is not None
        found, wanted = resample(image, label, changes.affine, tuple(params["patch"]))
        found = policies.change_intensities(found, changes, rng)
        found, wanted = policies.finish(found, wanted, changes, {})
        return {"image": found, "label": wanted}

    return call


def tiles(folder: Path) -> Call:
    """Windows put together to an image; the network is a look-up."""
    import torch

    from nnunetlike.inference.strategies import STRATEGIES, Request
    from nnunetlike.inference.strategies.sliding_window import sliding_window

    torch.set_num_threads(1)
    params, image, logits = read(folder, "image", "logits")
    network = torch.nn.Module()
    network.classes = len(logits)
    fixed = torch.from_numpy(logits)[None]
    network.forward = lambda x: fixed.expand(len(x), *fixed.shape[1:])
    request = Request(
        patch_size=tuple(params["patch"]), device=torch.device("cpu"), logits=True
    )
    assert STRATEGIES.get("sliding_window") is sliding_window
    return lambda: sliding_window(network, image, request)


def _network(folder: Path, kind: str, **settings: Any) -> Any:
    """Return the parameters of a stage and a network with seeded weights."""
    import torch

    import nnunetlike.networks.unet  # noqa: F401, PLC0415 - registers it
    import nnunetlike.networks.unet_plus_plus  # noqa: F401, PLC0415
    from nnunetlike.networks import NETWORKS, NetworkTask
    from nnunetlike.plans.topology import Topology

    torch.set_num_threads(1)
    torch.manual_seed(0)
    params = read(folder)[0]
    task = NetworkTask(
        channels=1, classes=params["classes"], base_features=params["features"],
        topology=Topology.of([[2] * 3] * params["pools"], [[3] * 3] * (params["pools"] + 1)),
    )  # fmt: skip
    return params, NETWORKS.get(kind)(**settings).build(task)


def forward(folder: Path, *, autocast: bool = True) -> Call:
    """The U-Net once over a window as prediction does it, bfloat16 where that is asked for."""
    import torch

    from nnunetlike.inference.strategies import Request
    from nnunetlike.inference.strategies.sliding_window import sliding_window
    from nnunetlike.networks.v1_weights import load_v1_state_dict

    params, network = _network(folder, "unet")
    with np.load(folder / "weights.npz") as weights:
        load_v1_state_dict(network, {k: torch.from_numpy(weights[k]) for k in weights})
    network.eval()
    network.deep_supervision = False
    (image,) = read(folder, "image")[1:]
    request = Request(
        patch_size=tuple(params["patch"]), device=torch.device("cpu"), logits=True,
        autocast=torch.bfloat16 if autocast else None,
    )  # fmt: skip
    return lambda: sliding_window(network, image, request)


def step(folder: Path, *, autocast: bool = False, nodes: bool = False) -> Call:
    """A training step of UNet++: forward, loss of all heads, backward."""
    import torch

    from nnunetlike.training.objectives.segmentation import DeepSupervision

    params, network = _network(folder, "unet_plus_plus", checkpoint_nodes=nodes)
    objective = DeepSupervision(weights="all").build(network, batch_dice=False).train()
    image, label = read(folder, "image", "label")[1:]
    batch = {"image": torch.from_numpy(image)[None], "label": torch.from_numpy(label)[None]}

    def call() -> Mapping[str, Any]:
        network.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = objective(batch).loss
        loss.backward()
        return {"loss": loss.item()}

    return call


def _command(folder: Path, name: str, *words: str) -> None:
    """Run a command of ours, its folders below `folder`."""
    places = {"nnUNet_raw_data_base": folder / "raw_v1", "nnUNet_preprocessed": folder / "ours",
              "RESULTS_FOLDER": folder / "model"}  # fmt: skip
    env = {**os.environ, **{key: str(place) for key, place in places.items()}}
    words = (sys.executable, "-m", f"nnunetlike.run.{name}", *words)
    subprocess.run(words, env=env, stdout=2, check=True)


def chain_preprocess(folder: Path) -> Call:
    """`nnUNet_plan_and_preprocess`, one process."""
    from nnunetlike.data.store import CaseStore

    def call() -> Mapping[str, Any]:
        shutil.rmtree(folder / "ours", ignore_errors=True)
        shutil.rmtree(folder / "raw_v1" / "nnUNet_cropped_data", ignore_errors=True)
        _command(folder, "plan_and_preprocess", "-t", "101", "-tl", "1", "-tf", "1")
        stage = folder / "ours" / "Task101_Synthetic" / "nnUNetData_plans_v2.1_stage0"
        return {"case": CaseStore(stage).load("case_0", unpacked=False)}

    return call


def chain_predict(folder: Path) -> Call:
    """`nnUNet_predict` in one process beside those that read and write."""
    out = folder / "predicted_by_us"

    def call() -> Mapping[str, Any]:
        from nnunetlike.data.imageio import format_of

        shutil.rmtree(out, ignore_errors=True)
        _command(
            folder, "predict", "-i", str(folder / "new"), "-o", str(out), "-t", "101", "-m",
            "3d_fullres", "-tr", "nnUNetTrainerV2", "-f", "all", "--disable_tta", "--device",
            "cpu", "--num_threads_preprocessing", "1", "--num_threads_nifti_save", "1",
        )  # fmt: skip
        path = out / "case_0.nii.gz"
        return {"label": format_of(path).read_label(path)[0]}

    return call


def scale_predict(folder: Path) -> Call:
    """Windows put together and the label map on a finer grid; the network is a look-up."""
    import torch

    from nnunetlike.inference.strategies import Request
    from nnunetlike.inference.strategies.sliding_window import sliding_window
    from nnunetlike.preprocessing.label_export import resampled_argmax

    torch.set_num_threads(1)
    params = read(folder)[0]
    shape, classes = params["shape"], params["classes"]
    patch = tuple(min(n, 32) for n in shape)
    network = torch.nn.Module()
    network.classes = classes
    fixed = torch.rand(1, classes, *patch)
    network.forward = lambda x: fixed.expand(len(x), *fixed.shape[1:])
    request = Request(patch_size=patch, device=torch.device("cpu"))
    image = np.ones((1, *shape), np.float32)
    finer = [3 * n // 2 for n in shape]
    return lambda: resampled_argmax(sliding_window(network, image, request), finer)


def scale_export(folder: Path) -> Call:
    """The label map on a finer grid, of probabilities that are there."""
    from benchmarks.stages.synthetic import fields
    from nnunetlike.preprocessing.label_export import resampled_argmax

    params = read(folder)[0]
    values = fields(np.random.default_rng(0), params["shape"], params["classes"])
    finer = [3 * n // 2 for n in params["shape"]]
    return lambda: resampled_argmax(values, finer)


STAGES: Mapping[str, Callable[[Path], Call]] = {
    "resample_image": resample_image,
    "resample_separate": resample_separate,
    "resample_label_3": resample_label,
    "resample_label_98": resample_label,
    "export_3": export,
    "export_25": export,
    "export_117": export,
    "crop_brain": crop,
    "crop_ct": crop,
    "fingerprint": fingerprint,
    "class_locations": class_locations,
    "dice_24": dice,
    "hd95": hd95,
    "read_image": read_image,
    "write_label": write_label,
    "patch_128": patch,
    "spatial_3": spatial,
    "spatial_24": spatial,
    "augment_3": augment,
    "augment_24": augment,
    "tiles_3": tiles,
    "tiles_10": tiles,
    "forward": partial(forward, autocast=False),
    "forward_bf16": forward,
    "step_bf16": partial(step, autocast=True),
    "step_nodes": partial(step, nodes=True),
    "step_nodes_bf16": partial(step, autocast=True, nodes=True),
    "chain_preprocess": chain_preprocess,
    "chain_preprocess_large": chain_preprocess,
    "scale_preprocess": chain_preprocess,
    "scale_predict": scale_predict,
    "scale_export": scale_export,
    "chain_predict": chain_predict,
    "chain_predict_large": chain_predict,
}
