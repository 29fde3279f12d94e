"""Ours, with networks and whole commands: windows, forward, training step, the chain."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides.inputs import Call, read


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
    request = Request(patch_size=tuple(params["patch"]), device=torch.device("cpu"), logits=True)
    assert STRATEGIES.get("sliding_window") is sliding_window
    return lambda: sliding_window(network, image, request)


def _network(folder: Path, kind: str, **settings: Any) -> Any:
    """Return the parameters of a stage and a network with seeded weights."""
    import torch

    import nnunetlike.networks.unet
    import nnunetlike.networks.unet_plus_plus  # noqa: F401
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
    from nnunetlike.networks.memory_format import lay_out
    from nnunetlike.networks.v1_weights import load_v1_state_dict

    params, network = _network(folder, "unet")
    dtype, device = torch.bfloat16 if autocast else None, torch.device("cpu")
    lay_out(network, device, dtype)
    with np.load(folder / "weights.npz") as weights:
        load_v1_state_dict(network, {k: torch.from_numpy(weights[k]) for k in weights})
    network.eval()
    network.deep_supervision = False
    (image,) = read(folder, "image")[1:]
    request = Request(
        patch_size=tuple(params["patch"]), device=device, logits=True, autocast=dtype,
    )  # fmt: skip
    return _with_freed_memory_kept(lambda: sliding_window(network, image, request))


def _with_freed_memory_kept(call: Call) -> Call:
    """Return a call as it is amid a case or a training; memory is given back with it."""
    from nnunetlike.core.heap import freed_memory_kept

    held = ExitStack()
    held.enter_context(freed_memory_kept())
    weakref.finalize(call, held.close)
    return call


def plain_step(folder: Path, *, autocast: bool = False, nodes: bool = False) -> Call:
    """A training step of UNet++: forward, loss of all heads, backward."""
    import torch

    from nnunetlike.training.objectives.segmentation import DeepSupervision

    _, network = _network(folder, "unet_plus_plus", checkpoint_nodes=nodes)
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


def step(folder: Path, *, autocast: bool = False, nodes: bool = False) -> Call:
    """The same amid a training, which keeps freed memory unless nodes are to save some."""
    call = plain_step(folder, autocast=autocast, nodes=nodes)
    return call if nodes else _with_freed_memory_kept(call)


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
        stage = folder / "ours" / "Task101_Chain" / "nnUNetData_plans_v2.1_stage0"
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

    from nnunetlike.inference.strategies import Request, slabs_of
    from nnunetlike.inference.strategies.sliding_window import sliding_window
    from nnunetlike.inference.streaming import settled
    from nnunetlike.preprocessing.label_stream import LabelStream

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
    return lambda: settled(
        slabs_of(sliding_window, network, image, request), LabelStream(shape, finer, classes)
    )


def scale_export(folder: Path) -> Call:
    """The label map on a finer grid, of probabilities that are there."""
    from benchmarks.stages.synthetic import fields
    from nnunetlike.preprocessing.label_export import resampled_argmax

    params = read(folder)[0]
    values = fields(np.random.default_rng(0), params["shape"], params["classes"])
    finer = [3 * n // 2 for n in params["shape"]]
    return lambda: resampled_argmax(values, finer)


def predict_share(folder: Path) -> Call:
    """How much of the CPU time of a prediction is the network, and its convolutions alone."""
    from nnunetlike import Predictor

    model = folder / "model" / "nnUNet" / "3d_fullres" / "Task101_Chain"
    predictor = Predictor.from_folder(
        model / "nnUNetTrainerV2__nnUNetPlansv2.1", ["all"], device="cpu", tta=False
    )
    network = predictor.bundle.network
    seconds = {"network": 0.0, "convolutions": 0.0}
    _clocked(network, "network", seconds)
    for module in network.modules():
        if type(module).__name__.startswith("Conv"):
            _clocked(module, "convolutions", seconds)
    image = folder / "new" / "case_0_0000.nii.gz"

    def call() -> Mapping[str, Any]:
        seconds.update(network=0.0, convolutions=0.0)
        start = time.process_time()
        predictor.predict(image)
        total = time.process_time() - start
        return {name: value / total for name, value in seconds.items()}

    return call


def _clocked(module: Any, name: str, seconds: dict[str, float]) -> None:
    """Add the CPU time of every call of a module to `seconds[name]`."""
    starts: list[float] = []
    module.register_forward_pre_hook(lambda *_: starts.append(time.process_time()))

    def stop(*_: Any) -> None:
        seconds[name] += time.process_time() - starts.pop()

    module.register_forward_hook(stop)


STAGES: Mapping[str, Callable[[Path], Call]] = {
    "predict_share": predict_share,
    "tiles_3": tiles,
    "tiles_10": tiles,
    "forward": partial(forward, autocast=False),
    "forward_bf16": forward,
    "step_bf16": partial(step, autocast=True),
    "step_nodes": partial(step, nodes=True),
    "step_nodes_bf16": partial(step, autocast=True, nodes=True),
    "chain_preprocess": chain_preprocess,
    "chain_preprocess_large": chain_preprocess,
    "chain_hippocampus": chain_preprocess,
    "scale_preprocess": chain_preprocess,
    "scale_predict": scale_predict,
    "scale_export": scale_export,
    "chain_predict": chain_predict,
    "chain_predict_large": chain_predict,
    "chain_hippocampus_predict": chain_predict,
}
