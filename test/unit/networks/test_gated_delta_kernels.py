"""Kernels of fla-core are used where they are installed and cost nothing, and never needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunetlike.core.errors import UsageError
from nnunetlike.networks import gated_delta_kernels
from nnunetlike.networks.gated_delta import gated_delta_rule, gated_delta_state
from nnunetlike.networks.gated_delta_kernels import find_kernel, require, worthwhile

PATH = "fla.ops.gated_delta_rule"


@pytest.fixture(autouse=True)
def _look_again() -> Iterator[None]:
    find_kernel.cache_clear()
    yield
    find_kernel.cache_clear()


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Importing fla raises ModuleNotFoundError."""
    for name in ("fla", "fla.ops", PATH):
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Stands in for fla; what it was called with."""
    given: list[dict[str, Any]] = []

    def kernel(**arguments: Any) -> tuple[Tensor, Tensor]:
        given.append(dict(arguments))
        assert arguments.pop("output_final_state")
        return gated_delta_rule(**arguments, backend="sequential")

    for name in ("fla", "fla.ops", PATH):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[PATH], "chunk_gated_delta_rule", kernel, raising=False)
    return given


def on_cuda(
    tokens: int = 64, features: int = 64, dtype: torch.dtype = torch.bfloat16
) -> Any:  # a tensor that need not exist
    return SimpleNamespace(
        device=SimpleNamespace(type="cuda"), shape=(1, tokens, 1, features), dtype=dtype
    )


def tokens(dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, ...]:
    draw = torch.Generator().manual_seed(1)
    wide = torch.randn((1, 70, 1, 8), generator=draw)
    key = torch.nn.functional.normalize(wide, dim=-1).to(dtype)
    gate = torch.rand((1, 70, 1), generator=draw)
    return key, key, wide.to(dtype), gate, -gate


@pytest.mark.usefixtures("absent")
def test_auto_does_without_kernels() -> None:
    answers, _ = gated_delta_rule(*tokens())
    assert torch.equal(answers, gated_delta_rule(*tokens(), backend="torch")[0])
    assert not worthwhile(on_cuda(), on_cuda())


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize("rule", [gated_delta_rule, lambda q, *x, **y: gated_delta_state(*x, **y)])
def test_kernels_that_are_asked_for_and_absent_are_an_error_that_says_what_to_install(
    rule: Callable[..., Any],
) -> None:
    with pytest.raises(
        UsageError, match=r"'fla' cannot be imported .*'nnunetlike\[fla\]'.*'torch'"
    ):
        rule(*tokens(), backend="fla")


@pytest.mark.usefixtures("calls")
def test_kernels_are_refused_without_a_cuda_device() -> None:
    with pytest.raises(UsageError, match="needs a CUDA device, but the keys are on cpu"):
        gated_delta_rule(*tokens(), backend="fla")


@pytest.mark.usefixtures("calls")
def test_kernels_are_refused_for_wide_keys_and_float64() -> None:
    with pytest.raises(UsageError, match="256 features at most, these have 300"):
        require(on_cuda(features=300))
    with pytest.raises(UsageError, match="no float64"):
        require(on_cuda(dtype=torch.float64))


@pytest.mark.usefixtures("calls")
def test_auto_takes_kernels_for_a_chunk_of_tokens_in_half_precision() -> None:
    assert worthwhile(on_cuda(), on_cuda())
    assert not worthwhile(on_cuda(tokens=63), on_cuda(tokens=63))
    assert not worthwhile(on_cuda(features=300), on_cuda())
    for dtype in (torch.float32, torch.float64):
        assert not worthwhile(on_cuda(dtype=dtype), on_cuda(dtype=dtype))


@pytest.mark.usefixtures("calls")
def test_auto_takes_kernels_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    assert worthwhile(on_cuda(dtype=torch.float32), on_cuda())


def test_kernels_get_what_they_expect(
    calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gated_delta_kernels, "require", lambda k: None)
    q, k, v, beta, g = tokens()
    g = g.clone()
    g[:, 3] = -torch.inf
    state = torch.ones(1, 1, 8, 8).double()
    made = gated_delta_rule(q, k, v, beta, g, initial_state=state, scale=0.3, backend="fla")
    expected = gated_delta_rule(q, k, v, beta, g, initial_state=state, scale=0.3, backend="torch")
    assert (made[0].dtype, made[1].dtype) == (torch.bfloat16, torch.float32)
    assert float((made[1] - expected[1]).abs().max()) < 1e-4
    (call,) = calls
    assert {call[name].dtype for name in "qkv"} == {torch.bfloat16}
    assert call["g"].dtype == call["beta"].dtype == call["initial_state"].dtype == torch.float32
    assert float(call["g"].min()) == -20 and call["scale"] == 0.3
    assert float(g.min()) == -torch.inf
    only = gated_delta_state(k, v, beta, g, initial_state=state, backend="fla")
    assert torch.equal(only, made[1])


def test_a_broken_installation_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(name: str) -> ModuleType:
        raise RuntimeError("0 active drivers")

    monkeypatch.setattr(gated_delta_kernels.importlib, "import_module", broken)
    assert not worthwhile(on_cuda(), on_cuda())
    assert not worthwhile(on_cuda(), on_cuda())
    assert [record.getMessage() for record in caplog.records] == [
        "fla-core is installed but cannot be imported, so it is not used: 0 active drivers"
    ]
    with pytest.raises(UsageError, match="0 active drivers"):
        require(on_cuda())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_agree_with_torch(dtype: torch.dtype) -> None:
    if not torch.cuda.is_available() or isinstance(find_kernel(), str):
        pytest.skip("needs a CUDA device and fla-core")
    given = [x.cuda() for x in tokens(dtype)]
    made = gated_delta_rule(*given, backend="fla")
    expected = gated_delta_rule(*given, backend="torch")
    for ours, theirs in zip(expected, made, strict=True):
        error = (ours.float() - theirs.float()).square().mean().sqrt()
        assert float(error / ours.float().square().mean().sqrt()) < 8e-3
