"""One test for each error of the published code that concerns the network."""

from __future__ import annotations

import inspect
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import Tensor

from nnunetlike.networks.gdkvm import GDKVM, GDKVMSpec
from nnunetlike.networks.gdkvm_memory import Gates, KeyPixelFusion, KeyValueMemory
from nnunetlike.networks.gdkvm_objects import OBJECT_DECAY
from nnunetlike.networks.gdkvm_sizes import SMALL

TASK = GDKVMSpec.tiny()[1]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def network(classes: int = 2, **settings: object) -> GDKVM:
    return GDKVMSpec(**settings).build(replace(TASK, classes=classes)).eval()


def test_e2_the_memory_fades_by_a_factor_between_0_and_1_whatever_it_sees() -> None:
    gates = Gates(features=8, heads=4, rule="implicit")
    torch.nn.init.normal_(gates.decay.weight)
    torch.nn.init.normal_(gates.A_log)
    for size in (0.0, 1.0, 1e3):
        decay = gates(size * torch.randn(64, 8, 2, 2))[1].exp()
        assert ((decay >= 0) & (decay <= 1)).all()
    assert (decay > 0).any()


def test_e2_new_heads_keep_95_percent_and_more_of_a_frame() -> None:
    decay = Gates(features=8, heads=4, rule="implicit")(torch.randn(16, 8, 2, 2))[1].exp()
    assert decay.min() >= 0.95
    assert decay.max() < 1


def test_e3_a_head_has_both_of_its_gates() -> None:
    memory = KeyValueMemory(replace(SMALL, heads=2, embed=8, key=4), "implicit")
    gates = memory.gates
    with torch.no_grad():
        gates.strength.weight.zero_()
        gates.strength.bias.copy_(torch.tensor([20.0, -40.0]))  # only the first head is written
        gates.dt_bias.copy_(torch.tensor([-40.0, 40.0]))  # only the first head keeps anything
        before = torch.ones(1, 1, 2, 4, 4)
        key = torch.eye(4)[None, :, None]
        after = memory.write(before, key, torch.full((1, 8, 2, 2), 3.0))
    assert (after[0, 0, 0] > 2).all()  # (1 + 5 x 3) / 6: strength 20, shared by 4 tokens
    assert after[0, 0, 1].abs().max() < 1e-6


def test_e4_a_frame_is_read_first_and_written_with_its_own_image_features_and_masks() -> None:
    net = network()
    net.deep_supervision = False
    parts = net.recollection
    assert parts is not None
    order: list[str] = []
    frame, state = torch.randn(1, 1, 32, 32), net.init_state(1, 32, 32)

    def noted(name: str, call: object) -> mock.Mock:
        return mock.Mock(side_effect=lambda *a: (order.append(name), call(*a))[1])  # type: ignore[operator]

    with (
        torch.no_grad(),
        mock.patch.object(parts.memory, "read", noted("read", parts.memory.read)),
        mock.patch.object(parts.memory, "write", noted("write", parts.memory.write)) as write,
        mock.patch.object(parts.values, "forward", noted("value", parts.values.forward)) as value,
    ):
        logits, after = net.step(frame, state)
        features = net._encode(frame)
    assert order == ["read", "value", "write"]
    image, masks, pixels = value.call_args.args
    assert torch.equal(image, frame)
    torch.testing.assert_close(masks, logits.softmax(1)[:, 1:])
    torch.testing.assert_close(pixels, features.pixels)
    torch.testing.assert_close(write.call_args.args[1], features.key)
    assert after.memory.any()


@pytest.mark.parametrize("rule", ["implicit", "sequential", "mean"])
def test_e5_the_memory_stays_bounded_over_hundreds_of_alike_frames(rule: str) -> None:
    memory = KeyValueMemory(replace(SMALL, heads=2, embed=8, key=8), rule)
    torch.nn.init.constant_(memory.gates.strength.bias, 10)
    common, state = torch.randn(8), torch.zeros(1, 1, 2, 8, 4)
    with torch.no_grad():
        for _ in range(500):
            key = torch.nn.functional.normalize(0.1 * torch.randn(1, 16, 1, 8) + common, dim=-1)
            state = memory.write(state, key, torch.rand(1, 8, 4, 4) * 2 - 1)
    assert state.isfinite().all()
    assert state.norm() < 1e3


def test_e5_keys_have_length_1_and_reads_do_not_depend_on_the_number_of_tokens() -> None:
    net = network()
    assert net.recollection is not None
    with torch.no_grad():
        for size in (32, 64):
            key = net._encode(torch.randn(2, 1, size, size)).key
            assert key is not None
            torch.testing.assert_close(key.norm(dim=-1), torch.ones(key.shape[:-1]))
        memory, value = net.recollection.memory, torch.ones(2, SMALL.embed, 4, 4)
        empty = net.init_state(2, 32, 32).memory
        few = memory.read(memory.write(empty, key[:, :16], value), key[:, :16], 4, 4)
        twice = torch.cat([value, value], 2)
        again = torch.cat([key[:, :16]] * 2, 1)
        many = memory.read(memory.write(empty, again, twice), key[:, :16], 4, 4)
    torch.testing.assert_close(few, many)


def test_e6_the_object_memory_does_not_grow() -> None:
    net = network()
    frame, state, seen = torch.randn(1, 1, 32, 32), net.init_state(1, 32, 32), []
    with torch.no_grad():
        for _ in range(40):
            state = net.step(frame, state)[1]
            seen.append(state.objects[..., -1].clone())
    assert all((area <= 1).all() for area in seen)  # a mean of weights between 0 and 1
    change = (seen[-1] - seen[-2]).abs().max()
    assert change < OBJECT_DECAY**20


def test_e7_the_network_is_given_images_and_no_labels() -> None:
    assert list(inspect.signature(GDKVM.forward).parameters) == ["self", "image"]
    assert list(inspect.signature(GDKVM.step).parameters) == ["self", "frame", "state"]


@pytest.mark.parametrize("classes", [2, 4])
def test_e7_the_task_says_how_many_objects_there_are_and_none_may_be_seen(classes: int) -> None:
    net = network(classes).train()
    heads = net(torch.zeros(1, 1, 3, 32, 32))
    assert all(head.shape[1] == classes for head in heads)
    background = torch.stack([-head.log_softmax(1)[:, 0].mean() for head in heads]).sum()
    background.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_e8_each_clip_has_auxiliary_logits_of_its_own() -> None:
    net = network().train()
    clip = torch.randn(3, 1, 2, 32, 32, requires_grad=True)
    for head in net(clip)[1:]:
        for sample in range(3):
            (gradient,) = torch.autograd.grad(head[sample].square().sum(), clip, retain_graph=True)
            reached = gradient.abs().amax((1, 2, 3, 4)) > 0
            assert reached.tolist() == [n == sample for n in range(3)]


def test_e11_autocast_reaches_the_convolutions_and_not_the_memory() -> None:
    net = network()
    kinds: dict[str, torch.dtype] = {}

    def note(name: str) -> object:
        def hook(_module: object, _inputs: object, output: Tensor) -> None:
            kinds[name] = output.dtype

        return hook

    assert net.recollection is not None
    for name in ("image_encoder.conv1", "fuser.first", "decoder.logit"):
        net.get_submodule(name).register_forward_hook(note(name))  # type: ignore[arg-type]
    frame, state = torch.randn(1, 1, 32, 32), net.init_state(1, 32, 32)
    with torch.no_grad():
        full = net.step(frame, state)[1].memory
        with torch.autocast("cpu", torch.bfloat16):
            logits, after = net.step(frame, state)
    assert set(kinds.values()) == {torch.bfloat16}
    assert {x.dtype for x in after.to_plain().values()} == {torch.float32}
    assert logits.dtype == torch.float32
    assert (after.memory - full).norm() < 0.05 * full.norm()


def test_e12_the_backbone_is_called_as_is_said_and_learns_at_a_tenth_of_the_rate() -> None:
    with torch.device("meta"):
        net = GDKVMSpec(size="base", pretrained="not read.pth").build_empty(TASK)
    named = {n: p for n, p in net.named_parameters() if n.startswith(GDKVM.backbone_prefix)}
    assert len(named) == 129  # a stem and 13 bottlenecks of 3, with norms, 3 with a shortcut
    assert {getattr(p, "rate_factor", 1.0) for p in named.values()} == {0.1}
    others = [p for n, p in net.named_parameters() if n not in named]
    assert {getattr(p, "rate_factor", 1.0) for p in others} == {1.0}


def test_e12_weights_that_are_new_learn_at_the_full_rate() -> None:
    assert not any(hasattr(p, "rate_factor") for p in network().parameters())


def test_e15_no_width_is_written_into_the_code() -> None:
    assert KeyPixelFusion(12, 20)(torch.zeros(1, 12, 2, 3), torch.zeros(1, 20, 2, 3)).shape == (
        1, 12, 2, 3,
    )  # fmt: skip
    sizes = replace(
        SMALL, key=12, embed=20, heads=5, sensory=7, queries=6, attention_heads=2, decoder=(9, 5)
    )
    task = replace(TASK, channels=3)
    net = GDKVM(task, sizes, GDKVMSpec())
    assert net(torch.randn(1, 3, 2, 32, 32))[0].shape == (1, 3, 2, 32, 32)
