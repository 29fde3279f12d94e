"""Whether a training's network is compiled, and a rehearsal of it before the first step."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from nnunetlike.networks.compiling import (
    FAULTS,
    as_before,
    compile_network,
    compiled_forward,
    is_compiled,
    obstacle,
)
from nnunetlike.training.objectives.segmentation import (
    HeadWeights,
    SegmentationObjective,
    head_weights,
)
from nnunetlike.training.runtime import Runtime

Wish = Literal["on", "off", "auto"]
WORTHWHILE = 5000
"""Training steps from which on compiling pays without being asked for: it takes half a minute to
minutes, and then saves 0.4 of a step's time on a CPU in bfloat16, of steps from 0.01 s on."""

logger = logging.getLogger(__name__)


def why_not(
    wish: Wish, network: nn.Module, runtime: Runtime, *, steps: int, repeatable: bool
) -> str | None:
    """Return why a network is not compiled for a training; None if it is to be.

    Args:
        wish: what the user asked for.
        network: not yet compiled.
        runtime: device and precision.
        steps: of the whole training, so that one that goes on decides as it did at its begin.
        repeatable: the user wants the same numbers from any machine and torch.
    """
    if wish == "off":
        return "as asked"
    if wish == "auto":
        if runtime.device.type != "cpu":
            return "its gain was measured on CPUs only; --compile does it"
        if runtime.precision != "bf16":
            return f"{runtime.precision} stays as it was, to the last bit; --compile does it"
        if repeatable:
            return "results are to be repeatable; --compile does it"
        if steps < WORTHWHILE:
            return f"{steps} steps are too few to pay for it; --compile does it"
        if saves_memory(network):
            return "its nodes are computed again to save memory; --compile does it"
    return obstacle(network, runtime.device)


def saves_memory(network: nn.Module) -> bool:
    """Tell whether nodes of a network are computed again to save memory."""
    return any(getattr(module, "checkpointed", False) for module in network.modules())


@contextmanager
def compiled(
    objective: nn.Module, runtime: Runtime, shape: Sequence[int], reason: str | None
) -> Iterator[None]:
    """Have the network of an objective compiled within the block; afterwards it is as it was.

    What could fail is done at once, forward, backward and without gradient, on made-up values that
    change neither weights nor random numbers. If it does fail, the block goes on without.

    Args:
        objective: of segmentation, unless there is a reason.
        runtime: device and precision.
        shape: of a batch of images, (B, C, *patch).
        reason: why not to compile, if there is one; it is told.
    """
    if reason is not None:
        if runtime.is_main:
            logger.info("the network is not compiled: %s", reason)
        yield
        return
    assert isinstance(objective, SegmentationObjective)  # others have an obstacle
    network, rule = objective.network, objective.rule
    begin = time.monotonic()
    with _without_idle_parameters(objective, _idle(network, runtime, shape, rule)):
        compile_network(network, runtime.device)
        try:
            _try(network, runtime, shape, rule)
            if is_compiled(network) and runtime.is_main:
                logger.info("the network is compiled, which took %.0f s", time.monotonic() - begin)
            yield
        finally:
            as_before(network)


@contextmanager
def _without_idle_parameters(
    objective: SegmentationObjective, idle: Sequence[nn.Parameter]
) -> Iterator[None]:
    """Have parameters that no loss reaches take no gradient, and data parallelism know it.

    Compiled they would get a gradient of 0 in place of none, and decay.
    """
    leaves_out, objective.leaves_heads_out = objective.leaves_heads_out, False
    for parameter in idle:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        objective.leaves_heads_out = leaves_out
        for parameter in idle:
            parameter.requires_grad_(True)


def _idle(
    network: nn.Module, runtime: Runtime, shape: Sequence[int], rule: HeadWeights
) -> list[nn.Parameter]:
    """Return the parameters that no loss reaches, as those of a head of weight 0."""
    _forward_and_backward(network, runtime, shape, rule)
    idle = [p for p in network.parameters() if p.requires_grad and p.grad is None]
    network.zero_grad(set_to_none=True)
    return idle


def _try(network: nn.Module, runtime: Runtime, shape: Sequence[int], rule: HeadWeights) -> None:
    """Have everything compiled that training and its validation batches call."""
    mode = network.training
    try:
        _forward_and_backward(network, runtime, shape, rule)
        network.eval()
        with torch.no_grad(), runtime.autocast():
            network(_made_up(shape, runtime.device))
    except torch.cuda.OutOfMemoryError:
        raise
    except FAULTS as error:
        forward = compiled_forward(network)
        if forward is None or not forward.works:
            raise
        forward.give_up(error)
    finally:
        network.train(mode)
        network.zero_grad(set_to_none=True)


def _forward_and_backward(
    network: nn.Module, runtime: Runtime, shape: Sequence[int], rule: HeadWeights
) -> None:
    network.train()
    with runtime.autocast():
        output = network(_made_up(shape, runtime.device))
    heads: list[Tensor] = output if isinstance(output, list) else [output]
    weights = head_weights(len(heads), rule)
    scored = [head for head, weight in zip(heads, weights, strict=True) if weight]
    torch.stack([head.float().square().mean() for head in scored]).sum().backward()


def _made_up(shape: Sequence[int], device: torch.device) -> Tensor:
    """Return values between -1 and 1 that differ from voxel to voxel, (B, C, *patch) float32."""
    count = torch.Size(shape).numel()
    return torch.arange(count, dtype=torch.float32, device=device).sin().view(*shape)
