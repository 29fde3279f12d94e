"""How exported networks are compared with the original, and what is done with old torch."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.core.errors import DataError
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.portable import (
    TOLERANCE,
    compare,
    load_network,
    random_patches,
    require_parity,
    write_network,
)
from nnunetlike.networks.unet import UNet, UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec

PATCHES = random_patches(1, (8, 8, 8), (1, 2))


def _network(spec: Any = None, dimension: int = 3) -> UNet:
    network = (spec or UNetSpec()).build(NetworkTask.tiny(dimension)).eval()
    network.deep_supervision = False
    return network


def _logits(network: UNet, patches: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return network(torch.from_numpy(patches)).numpy()


def test_a_network_equals_itself() -> None:
    network = _network()
    found = compare(network, lambda patches: _logits(network, patches), PATCHES)
    assert (found.patches, found.largest_difference_of_logits, found.share_of_equal_labels) == (
        3, 0, 1,
    )  # fmt: skip
    require_parity(found, "a.onnx", "3 random patches")


def test_the_largest_difference_of_any_batch_counts() -> None:
    network = _network()

    def wrong_in_batches_of_two(patches: np.ndarray) -> np.ndarray:
        logits = _logits(network, patches)
        logits[1:, 0, 0, 0, 0] += 0.5
        return logits

    found = compare(network, wrong_in_batches_of_two, PATCHES)
    assert found.largest_difference_of_logits == pytest.approx(0.5)
    with pytest.raises(DataError, match=r"a\.onnx: on patches .* nothing is written"):
        require_parity(found, "a.onnx", "patches")


@pytest.mark.parametrize("first", [True, False])
def test_nan_is_no_parity(first: bool) -> None:
    network = _network()

    def broken(patches: np.ndarray) -> np.ndarray:
        logits = _logits(network, patches)
        return np.full_like(logits, np.nan) if (len(patches) == 1) == first else logits

    found = compare(network, broken, PATCHES)
    assert not found.holds


def test_random_patches_are_the_same_at_every_call() -> None:
    again = random_patches(1, (8, 8, 8), (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(PATCHES, again, strict=True))
    assert [patches.shape for patches in again] == [(1, 1, 8, 8, 8), (2, 1, 8, 8, 8)]


@pytest.mark.parametrize("spec", [UNetSpec(), UNetPlusPlusSpec()])
@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("kind", ["onnx", "torchscript"])
def test_every_network_computes_the_same_elsewhere(
    tmp_path: Path, spec: Any, dimension: int, kind: Any
) -> None:
    if kind == "onnx":
        pytest.importorskip("onnx", reason="onnx is not installed")
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    network = _network(spec, dimension)
    batches = random_patches(1, (8,) * dimension, (1, 3))
    write_network(network, batches[0], tmp_path / "network", kind)
    found = compare(network, load_network(tmp_path / "network", kind), batches)
    assert found.largest_difference_of_probabilities < TOLERANCE
    assert found.patches == 4


def test_torch_that_knows_one_exporter_only_is_not_asked_to_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def of_torch_2_4(model: Any, args: Any, f: str, opset_version: int, input_names: Any,
                     output_names: Any, dynamic_axes: Any) -> None:  # fmt: skip
        asked.update(opset=opset_version, axes=dynamic_axes)

    assert "dynamo" not in inspect.signature(of_torch_2_4).parameters
    monkeypatch.setattr(torch.onnx, "export", of_torch_2_4)
    write_network(_network(), PATCHES[0], tmp_path / "a.onnx", "onnx")
    assert asked == {"opset": 17, "axes": {"image": {0: "batch"}, "logits": {0: "batch"}}}
