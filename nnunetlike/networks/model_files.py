"""Checkpoints in nnU-Net v1's layout: `X.model` (tensors) and `X.model.pkl` (how to rebuild).

Reading never executes what a file holds: tensors come through torch's weights-only reader with an
allow-list for numpy scalars, the pickle through the restricted reader of `core.serialization`.

Two files cannot be replaced at once. So `X.model` also holds the bytes of its `X.model.pkl`, which
are what is read here: a save that is cut off between the two leaves a whole checkpoint. The file
beside it is for nnU-Net v1, and of v1.
"""

from __future__ import annotations

import errno
import importlib
import logging
import pickle
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from nnunetlike.core.errors import DataError, ResourceError
from nnunetlike.core.serialization import (
    atomic_path,
    load_pickle,
    pickle_bytes,
    plain_dtype,
    unpickle_bytes,
)
from nnunetlike.core.specs import spec_from_dict, spec_to_dict
from nnunetlike.networks import NETWORKS, NetworkSpec, NetworkTask
from nnunetlike.networks.v1_init import stage_of
from nnunetlike.networks.v1_weights import load_v1_state_dict, network_from_v1, v1_kind
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.topology import Topology
from nnunetlike.plans.v1 import plans_from_v1

FINAL = "model_final_checkpoint.model"
LATEST = "model_latest.model"
BEST = "model_best.model"
INFORMATION = "information_file"
"""Entry of `X.model` with the bytes of `X.model.pkl`."""

TORCH_ADVISES = "Weights only load failed"
MIB = 2**20
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A checkpoint as read."""

    path: Path
    state_dict: Mapping[str, Tensor]
    """Under v1's names, a leading `module.` removed."""

    epoch: int
    content: Mapping[str, Any]
    """All of `X.model`."""

    info: Mapping[str, Any]
    """All of `X.model.pkl`."""

    plans: Plans
    stage: int

    def build(self) -> nn.Module:
        """Return the network with its weights, ready to predict.

        Ours describe themselves; of v1's, the kind follows from the names of the weights and the
        topology from plans and stage.
        """
        description = self.info.get("network")
        if description is not None:
            network = network_from_description(description)
            load_v1_state_dict(network, self.state_dict)
        else:
            topology = self.plans.stages[self.stage].topology
            network = network_from_v1(
                v1_kind(self.state_dict),
                self.state_dict,
                pool_op_kernel_sizes=topology.pool_op_kernel_sizes,
                conv_kernel_sizes=topology.conv_kernel_sizes,
                num_classes=self.plans.num_classes,
                conv_per_stage=self.plans.conv_per_stage,
            )
        network.deep_supervision = False  # type: ignore[assignment]  # a bool by contract
        return network.eval()


def describe_network(spec: NetworkSpec, task: NetworkTask) -> dict[str, Any]:
    """Return spec and task of a network in plain types."""
    return {
        "spec": spec_to_dict(spec, NETWORKS),
        "task": {
            "channels": task.channels,
            "classes": task.classes,
            "base_features": task.base_features,
            "conv_per_stage": task.conv_per_stage,
            "memory_stride": task.memory_stride,
            "network_size": task.network_size,
            "pool_op_kernel_sizes": [list(s) for s in task.topology.pool_op_kernel_sizes],
            "conv_kernel_sizes": [list(s) for s in task.topology.conv_kernel_sizes],
        },
    }


def network_from_description(description: Mapping[str, Any]) -> nn.Module:
    """Return a new network as `describe_network` described it; no pretrained weights are read."""
    spec: NetworkSpec = spec_from_dict(description["spec"], NETWORKS)
    task = dict(description["task"])
    topology = Topology.of(task.pop("pool_op_kernel_sizes"), task.pop("conv_kernel_sizes"))
    build = getattr(spec, "build_empty", spec.build)
    network: nn.Module = build(NetworkTask(topology=topology, **task))
    return network


def information_file(path: Path) -> Path:
    """Return the path of `X.model.pkl` given that of `X.model`."""
    return path.with_name(path.name + ".pkl")


def find_checkpoint(fold_folder: Path, name: str | None = None) -> Path:
    """Return the path of a checkpoint in a fold's folder.

    Args:
        fold_folder: holds `model_*.model`.
        name: with or without `.model`; None takes the final, else the latest, else the best.

    Raises:
        DataError: there is none; the message lists those that are there.
    """
    names = (FINAL, LATEST, BEST) if name is None else (f"{name.removesuffix('.model')}.model",)
    for candidate in names:
        path = fold_folder / candidate
        if path.is_file() and information_file(path).is_file():
            return path
    there = ", ".join(sorted(p.name for p in fold_folder.glob("*.model"))) or "no checkpoint"
    raise DataError(
        f"{fold_folder} holds no {' or '.join(names)} with its .pkl; found: {there}. Train this "
        "fold first, or name another checkpoint"
    )


def load_to_continue(fold_folder: Path) -> ModelFile:
    """Return the checkpoint that a training goes on from: latest, else final, else best.

    A finished training leaves no latest. Where both are there, a new training was interrupted that
    went over an old one, whose final weights are not what to go on from. A damaged checkpoint is
    passed over with a warning.

    Raises:
        DataError: there is none, or none that can be read; each damaged one is named.
    """
    problems: list[str] = []
    for name in (LATEST, FINAL, BEST):
        path = fold_folder / name
        if not path.is_file():
            continue
        try:
            model = load_model_file(path)
        except DataError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            logger.warning("%s; going on from %s, after %d epochs", problem, name, model.epoch)
        return model
    if problems:
        raise DataError(
            f"{'; '.join(problems)}. No other checkpoint is there to go on from; train again "
            "without -c"
        )
    return load_model_file(find_checkpoint(fold_folder))


def save_model_file(path: Path, content: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """Write `X.model` and `X.model.pkl`, each whole or not at all.

    Args:
        path: of `X.model`.
        content: `epoch`, `state_dict` (v1 names) and whatever training wants back; tensors and
            plain types.
        info: v1's `init`, `name`, `class`, `plans`, and our description; plain types.

    Raises:
        ResourceError: the disk is full; the checkpoint of before is still there.
    """
    information = pickle_bytes(OrderedDict(info))
    entry = torch.frombuffer(bytearray(information), dtype=torch.uint8)
    try:
        with atomic_path(information_file(path)) as temporary:
            temporary.write_bytes(information)
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            torch.save({**content, INFORMATION: entry}, stream)  # to a stream: OSError when full
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        free = shutil.disk_usage(path.parent).free
        raise ResourceError(
            f"the disk is full: {path.name} needs {_tensor_bytes(content) / MIB:.1f} MiB and "
            f"{path.parent} has {free / MIB:.1f} MiB free ({error.strerror}). What was saved "
            "before is unharmed; free some space and go on with -c"
        ) from None


def _tensor_bytes(value: Any) -> int:
    """Return the size of all tensors within, each once, which is nearly that of the file."""
    found = {leaf.data_ptr(): leaf.nbytes for leaf in tree_leaves(value) if torch.is_tensor(leaf)}
    return sum(found.values())


def load_model_file(path: Path) -> ModelFile:
    """Return a checkpoint of ours or of v1.

    Args:
        path: of `X.model`; `X.model.pkl` lies beside it.

    Raises:
        DataError: a file is missing, damaged, or holds more than tensors and plain types.
    """
    content = load_content(path)
    try:
        info = _information(path, content.pop(INFORMATION, None))
        plans, stage = plans_from_v1(info["plans"]), stage_of(info["init"])
        weights, epoch = content["state_dict"], int(content["epoch"])
    except (KeyError, IndexError) as error:
        raise DataError(f"{path} lacks the entry {error}; is it a checkpoint of nnU-Net?") from None
    return ModelFile(
        path=path,
        state_dict=without_module(weights),
        epoch=epoch,
        content=content,
        info=info,
        plans=plans,
        stage=stage,
    )


def _information(path: Path, entry: Tensor | None) -> Any:
    if entry is None:
        return load_pickle(information_file(path))
    return unpickle_bytes(entry.numpy().tobytes(), str(path))


def load_content(path: Path) -> dict[str, Any]:
    """Return the content of `X.model`, tensors on the CPU.

    Raises:
        DataError: it is missing, damaged, or holds more than tensors and plain types.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    try:
        with _numpy_scalars_allowed():
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        OSError,
        LookupError,
        ValueError,
    ) as error:
        raise DataError(
            f"{path} cannot be read as a checkpoint ({_reason(error)}). It is damaged, or asks to "
            "execute code, which is refused"
        ) from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise DataError(f"{path} holds a {kind}, where a checkpoint of nnU-Net is a dictionary")
    return content


def _reason(error: Exception) -> str:
    """Return what was refused, without torch's advice to read it all the same."""
    text = str(error)
    if not text.startswith(TORCH_ADVISES):
        return (text.splitlines() or [type(error).__name__])[0]
    asked = re.search(r"GLOBAL ([\w.]+)", text)
    return f"it asks for {asked[1]}" if asked else "it holds more than tensors and plain types"


def without_module(state_dict: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """Return weights without the `module.` that data-parallel training puts before each name."""
    return OrderedDict((name.removeprefix("module."), v) for name, v in state_dict.items())


@contextmanager
def _numpy_scalars_allowed() -> Iterator[None]:
    """Let torch's weights-only reader make numpy numbers, inside the block only."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals(_ALLOWED)
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _scalar_function(module: str) -> Callable[..., Any]:
    """Return numpy's maker of scalars under the module name that a file may call it by."""
    core = importlib.import_module("numpy._core" if hasattr(np, "_core") else "numpy.core")

    def scalar(dtype: np.dtype[Any], data: bytes = b"") -> Any:
        """Return a numpy number of these bytes."""
        return core.multiarray.scalar(plain_dtype(dtype), data)

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


_ALLOWED: list[Any] = [
    np.dtype,
    *{type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?")},
    _scalar_function("numpy.core.multiarray"),
    _scalar_function("numpy._core.multiarray"),
]
