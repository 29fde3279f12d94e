"""Networks through torch.compile, and every way in which that may fail."""

from __future__ import annotations

import copy
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nnunetlike.networks import NetworkTask
from nnunetlike.networks.compiling import (
    as_before,
    compile_network,
    compiled_forward,
    is_compiled,
    obstacle,
)
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.plans.topology import Topology

CPU = torch.device("cpu")
TASK = NetworkTask(
    channels=1, classes=3, base_features=4, conv_per_stage=1,
    topology=Topology.of([[2, 2]], [[3, 3]] * 2),
)  # fmt: skip


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    made = UNetSpec().build(TASK).eval()
    made.deep_supervision = False
    return made


IMAGE = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))


def called(network: nn.Module, image: Tensor = IMAGE) -> Any:
    with torch.inference_mode():
        return network(image)


def with_compiler(monkeypatch: pytest.MonkeyPatch, compiled: Callable[..., Any]) -> None:
    """Have torch.compile return what is given."""
    monkeypatch.setattr(torch, "compile", lambda *_, **__: compiled)


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")
def test_a_compiled_network_gives_what_the_eager_one_gives(network: nn.Module) -> None:
    eager = called(network)
    compile_network(network, CPU)
    found = called(network)
    assert is_compiled(network)
    assert not network.encoder[1][0].conv.weight.is_contiguous()
    assert torch.allclose(found, eager, atol=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("backend='inductor' raised:\nCppCompileError: C++ compile error"),
        OSError(28, "No space left on device"),
        ImportError("no triton"),
        AssertionError("a graph that inductor does not know"),
        subprocess.CalledProcessError(1, "g++"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_compiler_that_fails_at_the_first_call_is_told_once_and_the_numbers_stay(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:  # fmt: skip
    eager = called(network)

    def fail(_: Tensor) -> Tensor:
        raise error

    with_compiler(monkeypatch, fail)
    compile_network(network, CPU)
    with caplog.at_level(logging.WARNING):
        first, second = called(network), called(network)
    assert torch.equal(first, eager)
    assert torch.equal(second, eager)
    (record,) = caplog.records
    assert "the network is not compiled" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert not is_compiled(network)


def test_a_torch_that_cannot_compile_is_told_and_the_numbers_stay(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    eager = called(network)

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Dynamo is not supported on Python 3.13+")

    monkeypatch.setattr(torch, "compile", refuse)
    compile_network(network, CPU)
    assert torch.equal(called(network), eager)
    assert "Dynamo is not supported on Python 3.13+" in caplog.text


def test_what_failed_is_not_tried_again(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Tensor) -> Tensor:
        raise RuntimeError("no")

    with_compiler(monkeypatch, fail)
    for _ in range(2):
        compile_network(network, CPU)
        called(network)
    assert len(caplog.records) == 1


def test_lack_of_device_memory_is_no_fault_of_the_compiler(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Tensor) -> Tensor:
        raise torch.cuda.OutOfMemoryError("out of memory")

    with_compiler(monkeypatch, fail)
    compile_network(network, CPU)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        called(network)
    assert is_compiled(network)


def test_names_of_weights_stay_and_the_network_can_be_copied_and_set_back(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(network.state_dict())
    with_compiler(monkeypatch, lambda image: image)
    compile_network(network, CPU)
    assert list(network.state_dict()) == names
    assert list(copy.deepcopy(network).state_dict()) == names
    assert called(network) is IMAGE
    as_before(network)
    assert compiled_forward(network) is None
    assert called(network).shape == (1, 3, 16, 16)
    assert network.encoder[1][0].conv.weight.is_contiguous()


def test_results_of_cuda_graphs_are_copied_out_of_their_memory(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = torch.zeros(1)
    with_compiler(monkeypatch, lambda _: same.add_(1))
    compile_network(network, CPU, "reduce-overhead")
    first, second = called(network), called(network)
    assert (first.item(), second.item()) == (1, 2)


def test_a_missing_compiler_is_named(network: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("CXX", "my-c++")
    assert obstacle(network, CPU) == "there is no C++ compiler (my-c++; set CXX to another)"


@pytest.mark.parametrize(("platform", "name"), [("linux", "g++"), ("darwin", "clang++")])
def test_the_compiler_of_the_system_is_looked_for(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, platform: str, name: str
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(shutil, "which", lambda asked: None if asked == name else "/bin/x")
    assert f"({name};" in str(obstacle(network, CPU))


def test_windows_and_other_devices_are_not_compiled_for(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert obstacle(network, torch.device("mps")) == "torch.compile is not used on mps"
    monkeypatch.setattr(os, "name", "nt")
    assert obstacle(network, CPU) == "torch.compile is not used on Windows"


@pytest.mark.parametrize(
    ("triton", "capability", "expected"),
    [
        (None, (9, 0), "the package triton is not installed"),
        ("there", (6, 1), "Card is too old for Triton"),
        ("there", (9, 0), None),
    ],
)
def test_triton_is_what_a_gpu_needs(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, triton: str | None,
    capability: tuple[int, int], expected: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr("importlib.util.find_spec", lambda _: triton)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Card")
    assert obstacle(network, torch.device("cuda")) == expected


def test_networks_for_videos_are_not_compiled(network: nn.Module) -> None:
    network.init_state = lambda: None
    assert obstacle(network, CPU) == "a network for videos is not compiled"
