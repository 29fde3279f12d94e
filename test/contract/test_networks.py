"""What every registered network must do."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor, nn

from nnunetlike.core.specs import spec_from_dict, spec_to_dict
from nnunetlike.networks import NETWORKS, NetworkTask
from nnunetlike.plans.topology import Topology

NAMES = NETWORKS.names()
OF_CLIPS = [name for name in NAMES if NETWORKS.get(name).strategy == "frame_stream"]
OF_PATCHES = [name for name in NAMES if name not in OF_CLIPS]
CASES = [(name, dimension) for name in OF_PATCHES for dimension in (2, 3)]
CASES += [(name, 2) for name in OF_CLIPS]
FRAMES = (3,)


def patch_of(name: str, task: NetworkTask) -> tuple[int, ...]:
    """Return the axes of what a network sees: of a patch, or frames and pixels of a clip."""
    divisor = NETWORKS.get(name).tiny(task.topology.dimension)[0].build(task).input_divisor
    return (*(FRAMES if name in OF_CLIPS else ()), *(2 * d for d in divisor))


def image_for(name: str, task: NetworkTask, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (2, task.channels, *patch_of(name, task))
    return torch.randn(shape, generator=generator, dtype=dtype)


def checkpointed(name: str, dimension: int) -> tuple[nn.Module, nn.Module, NetworkTask]:
    """Return a network and the same weights in one that computes nodes again."""
    spec, task = NETWORKS.get(name).tiny(dimension)
    plain = spec.build(task).double()
    frugal = replace(spec, checkpoint_nodes=True).build(task).double()
    frugal.load_state_dict(plain.state_dict())
    return plain, frugal, task


def loss_of(network: nn.Module, image: Tensor) -> Tensor:
    return torch.stack([head.square().mean() for head in network(image)]).sum()


@pytest.mark.parametrize(("name", "dimension"), CASES)
def test_the_first_head_has_the_full_resolution(name: str, dimension: int) -> None:
    spec, task = NETWORKS.get(name).tiny(dimension)
    heads = spec.build(task)(image_for(name, task))
    assert heads[0].shape == (2, task.classes, *patch_of(name, task))
    assert all(head.shape[:2] == (2, task.classes) for head in heads)


@pytest.mark.parametrize(("name", "dimension"), CASES)
def test_without_deep_supervision_only_the_first_head_remains(name: str, dimension: int) -> None:
    spec, task = NETWORKS.get(name).tiny(dimension)
    network = spec.build(task)
    assert network.deep_supervision
    first = network(image_for(name, task))[0]
    network.deep_supervision = False
    assert torch.equal(network(image_for(name, task)), first)


@pytest.mark.parametrize("name", NAMES)
def test_a_network_tells_its_classes_and_divisor(name: str) -> None:
    spec, task = NETWORKS.get(name).tiny(3)
    network = spec.build(task)
    assert network.classes == task.classes
    assert network.input_divisor == ((16, 16) if name in OF_CLIPS else task.topology.divisor)


@pytest.mark.parametrize(("name", "dimension"), CASES)
def test_the_loss_of_all_heads_reaches_every_parameter(name: str, dimension: int) -> None:
    spec, task = NETWORKS.get(name).tiny(dimension)
    network = spec.build(task)
    loss_of(network, image_for(name, task)).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None]
    assert not without


@pytest.mark.parametrize("name", OF_PATCHES)
def test_anisotropic_pools_and_kernels_keep_the_shape(name: str) -> None:
    spec, task = NETWORKS.get(name).tiny(3)
    pools = [[1, 2, 2], [2, 2, 2], [1, 2, 1]]
    kernels = [[1, 3, 3], [3, 3, 3], [3, 3, 3], [3, 3, 1]]
    task = replace(task, topology=Topology.of(pools, kernels))
    network = spec.build(task)
    assert network.input_divisor == (2, 8, 4)
    assert network(image_for(name, task))[0].shape == (2, task.classes, 4, 16, 8)


@pytest.mark.parametrize(("name", "dimension"), CASES)
def test_checkpointed_nodes_give_the_same_loss_and_gradients(name: str, dimension: int) -> None:
    if "checkpoint_nodes" not in {field.name for field in fields(NETWORKS.get(name))}:
        pytest.skip(f"{name} does not checkpoint nodes")
    plain, frugal, task = checkpointed(name, dimension)
    losses = [loss_of(network, image_for(name, task, torch.float64)) for network in (plain, frugal)]
    for loss in losses:
        loss.backward()
    assert losses[0] == losses[1]
    for ours, same in zip(plain.parameters(), frugal.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, same.grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_a_spec_survives_being_written_as_a_dictionary(name: str) -> None:
    spec, _ = NETWORKS.get(name).tiny(2)
    assert spec_from_dict(spec_to_dict(spec, NETWORKS), NETWORKS) == spec


@pytest.mark.parametrize("name", NAMES)
def test_a_network_runs_in_half_precision_under_autocast(name: str) -> None:
    spec, task = NETWORKS.get(name).tiny(2)
    network = spec.build(task)
    convolved = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *args: convolved.append(args[2].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        heads = network(image_for(name, task))
    assert set(convolved) == {torch.bfloat16}
    # Logits of clips are joined from those of objects, which takes full precision.
    assert heads[0].dtype == (torch.float32 if name in OF_CLIPS else torch.bfloat16)
    assert torch.isfinite(heads[0]).all()


@pytest.mark.parametrize("name", OF_CLIPS)
def test_a_clip_has_the_logits_of_its_stream(name: str) -> None:
    spec, task = NETWORKS.get(name).tiny(2)
    network = spec.build(task).eval()
    network.deep_supervision = False
    clip = image_for(name, task)
    state = network.init_state(len(clip), *clip.shape[3:])
    frames = []
    for frame in clip.unbind(2):
        logits, state = network.step(frame, state)
        frames.append(logits)
    torch.testing.assert_close(torch.stack(frames, 2), network(clip), rtol=0, atol=1e-4)
