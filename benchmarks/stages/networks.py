"""Stages around the network: windows, forward, training step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.stages import Agreement, Arrays, Params, Stage, Work, about, within_range
from benchmarks.stages import synthetic as made
from benchmarks.stages.arrays import save


def _tiles(
    folder: Path, rng: np.random.Generator, *, shape: Sequence[int], patch: Sequence[int],
    classes: int,
) -> None:  # fmt: skip
    logits = rng.standard_normal((classes, *patch), np.float32)
    save(folder, image=np.ones((1, *shape), np.float32), logits=logits)


def _tile_sizes(classes: int) -> dict[str, Params]:
    return {
        "full": {"shape": (144, 240, 240), "patch": (96, 96, 96), "classes": classes},
        "quick": {"shape": (48, 80, 80), "patch": (32, 32, 32), "classes": classes},
        "tiny": {"shape": (12, 12, 12), "patch": (8, 8, 8), "classes": 2},
    }


def _window(
    folder: Path, rng: np.random.Generator, *, patch: Sequence[int], classes: int, features: int,
    pools: int,
) -> None:  # fmt: skip
    """Write a window and the weights of our U-Net by v1's names, which both sides load."""
    import torch

    from nnunetlike.networks.unet import UNetSpec
    from nnunetlike.networks.v1_weights import state_dict_to_v1

    torch.manual_seed(0)
    params = {"classes": classes, "features": features, "pools": pools}
    network = UNetSpec().build(_task_of(params))
    weights = {name: value.numpy() for name, value in state_dict_to_v1(network).items()}
    np.savez(folder / "weights.npz", **weights)
    save(folder, image=rng.standard_normal((1, *patch), np.float32))


def _training_patch(
    folder: Path, rng: np.random.Generator, *, patch: Sequence[int], classes: int, features: int,
    pools: int,
) -> None:  # fmt: skip
    label = made.labels(rng, patch, classes - 1).astype(np.int16)
    save(folder, image=made.image(rng, patch) / 100, label=label)


NET: dict[str, Params] = {
    "full": {"patch": (64, 64, 64), "classes": 3, "features": 32, "pools": 5},
    "tiny": {"patch": (8, 8, 8), "classes": 2, "features": 4, "pools": 1},
}


def _of(call: str, kind: Literal["float32", "bfloat16"] = "float32") -> Callable[[Params], Work]:
    """Return the arithmetic of a forward pass of U-Net or a step of UNet++, counted by torch."""

    def work(params: Params) -> Work:
        from torch.utils.flop_counter import FlopCounterMode

        from nnunetlike.networks import rehearsal
        from nnunetlike.networks.unet import UNetSpec
        from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec

        spec = UNetSpec() if call == "forward" else UNetPlusPlusSpec()
        network = rehearsal.on_meta(spec, _task_of(params))
        image = rehearsal.empty_image(_task_of(params), params["patch"], 1)
        with FlopCounterMode(display=False) as counter:
            if call == "forward":
                network(image)
            else:
                rehearsal.step(network, image)
        return Work(flops=float(counter.get_total_flops()), kind=kind)

    return work


def _task_of(params: Params) -> Any:
    from nnunetlike.networks import NetworkTask
    from nnunetlike.plans.topology import Topology

    pools = params["pools"]
    return NetworkTask(
        channels=1, classes=params["classes"], base_features=params["features"],
        topology=Topology.of([[2] * 3] * pools, [[3] * 3] * (pools + 1)),
    )  # fmt: skip


def _bfloat16(ours: Arrays, theirs: Arrays) -> Agreement:
    found = within_range(0.05)(ours, theirs)
    same = float((ours["value"].argmax(0) == theirs["value"].argmax(0)).mean())
    text = f"{found.text}; arg max equal in {100 * same:.2f} % (random weights)"
    return Agreement(found.holds and same > 0.95, text)


def _tile_stage(classes: int) -> Stage:
    return Stage(
        name=f"tiles_{classes}", title=f"windows of 96³ put together, {classes} classes",
        make=_tiles, sizes=_tile_sizes(classes), targets={"v1": 2.5, "v2": 2.5, "naive": 1},
        agree={"": within_range(1e-5), "v2": within_range(0.2)},
        work=lambda p: Work(bytes=4 * p["classes"] * float(np.prod(p["shape"]))),
        note="v2 sums float16, whose smallest weights underflow",
    )  # fmt: skip


STAGES = (
    _tile_stage(3),
    _tile_stage(10),
    Stage(
        name="forward", title="U-Net forward 64³, float32", make=_window, sizes=NET,
        targets={"v1": 1.0}, agree={"": within_range(1e-4)},
        work=_of("forward"),
    ),
    Stage(
        name="forward_bf16", title="U-Net forward 64³, ours bfloat16", make=_window, sizes=NET,
        targets={"v1": 3.0}, agree={"": _bfloat16},
        work=_of("forward", "bfloat16"),
    ),
    Stage(
        name="step_bf16", title="UNet++ step 64³, bfloat16 against float32", make=_training_patch,
        sizes=NET, targets={"naive": 2.3}, agree={"": about(0.02)},
        work=_of("step", "bfloat16"),
    ),
    Stage(
        name="step_nodes", title="UNet++ step 64³, memory with nodes computed again",
        make=_training_patch, sizes=NET, targets={"naive": 1 / 0.7}, agree={"": about(1e-5)},
        work=_of("step"), measures="memory",
    ),
    Stage(
        name="step_nodes_bf16", title="the same in bfloat16", make=_training_patch, sizes=NET,
        targets={"naive": 1 / 0.7}, agree={"": about(0.02)}, measures="memory",
        work=_of("step", "bfloat16"),
    ),
)  # fmt: skip
