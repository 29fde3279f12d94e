"""GDKVM on clips and on streams."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nnunetlike.core.errors import DataError, PlanError, ShapeError
from nnunetlike.networks import NetworkTask, rehearsal
from nnunetlike.networks import memory as memory_of_steps
from nnunetlike.networks.arithmetic import training_operations
from nnunetlike.networks.gdkvm import GDKVM, GDKVMSpec
from nnunetlike.networks.gdkvm_state import VideoState
from nnunetlike.networks.memory import inference_bytes, training_bytes
from nnunetlike.networks.model_files import describe_network, network_from_description
from nnunetlike.networks.v1_weights import (
    load_v1_state_dict,
    parameters_in_v1_order,
    state_dict_to_v1,
)

TASK = GDKVMSpec.tiny()[1]
VARIANTS = [
    {},
    {"memory": False},
    {"rule": "sequential"},
    {"rule": "mean"},
    {"rule": "sum"},
    {"sensory": False},
    {"mask_feedback": False},
]
IDS = ["default", "framewise", "sequential", "mean", "sum", "no_sensory", "no_feedback"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def network(settings: dict[str, Any] | None = None, task: NetworkTask = TASK) -> GDKVM:
    """Return a network for prediction."""
    built = GDKVMSpec(**(settings or {})).build(task).eval()
    built.deep_supervision = False
    return built


def video(frames: int = 4, height: int = 32, width: int = 48, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(batch, 1, frames, height, width, generator=generator)


def streamed(net: GDKVM, clip: Tensor) -> tuple[Tensor, VideoState]:
    """Return the logits of all frames, one after the other, and the last state."""
    state = net.init_state(clip.shape[0], *clip.shape[3:], dtype=clip.dtype)
    logits = []
    with torch.no_grad():
        for frame in clip.unbind(2):
            one, state = net.step(frame, state)
            logits.append(one)
    return torch.stack(logits, 2), state


def test_base_has_the_parameters_of_the_published_network() -> None:
    with torch.device("meta"):
        net = GDKVMSpec(size="base").build(replace(TASK, classes=2, memory_stride=16))
    count = sum(p.numel() for p in net.parameters())
    assert count == pytest.approx(35.08e6, rel=0.01)


def test_base_has_the_levels_and_the_memory_of_the_published_network() -> None:
    with torch.device("meta"):
        net = GDKVMSpec(size="base").build(replace(TASK, classes=2, memory_stride=16))
        fine, middle, coarse = net.image_encoder(torch.empty(1, 1, 256, 256))
        heads = net(torch.empty(2, 1, 2, 256, 256))
        memory = net.init_state(2, 256, 256).memory
    assert fine.shape == (1, 256, 64, 64)
    assert middle.shape == (1, 512, 32, 32)
    assert coarse.shape == (1, 1024, 16, 16)
    assert heads[0].shape == (2, 2, 2, 256, 256)
    assert [h.shape for h in heads[1:]] == [(2, 2, 2, 16, 16)] * 5  # sensory, and 4 of queries
    assert memory.movedim(2, 3).flatten(3).shape == (2, 1, 64, 256)


def test_small_is_small() -> None:
    count = sum(p.numel() for p in network().parameters())
    assert 0.3e6 < count < 1e6


def test_the_size_is_as_planned_unless_it_is_set() -> None:
    with torch.device("meta"):
        planned = GDKVMSpec().build(replace(TASK, network_size="base"))
        chosen = GDKVMSpec(size="small").build(replace(TASK, network_size="base"))
    assert planned.sizes.embed == 256
    assert chosen.sizes.embed < 256


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    ("frames", "height", "width", "stride"),
    [(1, 256, 256, 16), (2, 144, 176, 16), (10, 112, 112, 8), (37, 128, 128, 16)],
)
def test_clips_of_any_length_and_size_have_logits_of_all_classes(
    frames: int, height: int, width: int, stride: int, classes: int
) -> None:
    net = network(task=replace(TASK, classes=classes, memory_stride=stride))
    with torch.no_grad():
        logits = net(video(frames, height, width))
    assert logits.shape == (1, classes, frames, height, width)
    assert logits.isfinite().all()


@pytest.mark.parametrize("settings", VARIANTS, ids=IDS)
def test_a_stream_gives_the_logits_of_the_clip(settings: dict[str, Any]) -> None:
    net = network(settings)
    clip = video(frames=6, batch=2)
    with torch.enable_grad():  # encodes all frames together, as in training
        whole = net(clip)
    assert (streamed(net, clip)[0] - whole).abs().max() <= 1e-4


@pytest.mark.parametrize("settings", VARIANTS, ids=IDS)
def test_every_variant_trains_every_parameter(settings: dict[str, Any]) -> None:
    net = GDKVMSpec(**settings).build(TASK)
    torch.stack([head.square().mean() for head in net(video(batch=2))]).sum().backward()
    assert not [n for n, p in net.named_parameters() if p.grad is None]
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_a_frame_changes_nothing_before_it() -> None:
    net = network()
    clip = video(frames=5)
    changed = clip.clone()
    changed[:, :, 3] += torch.randn(32, 48)
    before, after = net(clip), net(changed)
    assert torch.equal(before[:, :, :3], after[:, :, :3])
    assert not torch.equal(before[:, :, 4], after[:, :, 4])


def test_clips_of_a_batch_are_strangers() -> None:
    net = network()
    clip = video(batch=2)
    changed = clip.clone()
    changed[1] *= 2
    assert torch.equal(net(clip)[0], net(changed)[0])


def test_frame_by_frame_nothing_passes_from_one_to_the_next() -> None:
    net = network({"memory": False})
    clip = video(frames=4)
    changed = clip.clone()
    changed[:, :, 1] += 1
    before, after = net(clip), net(changed)
    kept = [0, 2, 3]
    assert torch.equal(before[:, :, kept], after[:, :, kept])
    state = net.init_state(1, 32, 48)
    after_frame = net.step(clip[:, :, 0], state)[1]
    for name, tensor in after_frame.to_plain().items():
        assert torch.equal(tensor, state.to_plain()[name])


def test_frame_by_frame_is_what_the_first_frame_gets() -> None:
    net = network({"memory": False})
    clip = video(frames=3)
    alone = torch.stack([net(clip[:, :, t : t + 1])[:, :, 0] for t in range(3)], 2)
    torch.testing.assert_close(net(clip), alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"mask_feedback": False, "sensory": False}])
def test_the_loss_of_the_last_frame_reaches_the_first(settings: dict[str, Any]) -> None:
    clip = video(frames=4).requires_grad_()
    network(settings)(clip)[:, :, 3].square().sum().backward()
    assert clip.grad is not None
    assert (clip.grad.abs().amax((0, 1, 3, 4)) > 0).all()


def test_frame_by_frame_the_loss_stays_in_its_frame() -> None:
    clip = video(frames=3).requires_grad_()
    network({"memory": False})(clip)[:, :, 2].square().sum().backward()
    assert clip.grad is not None
    assert not clip.grad[:, :, :2].any()


def test_gradients_are_cut_off_where_asked() -> None:
    clip = video(frames=5).requires_grad_()
    net = network({"detach_every": 2})
    net(clip)[:, :, 4].square().sum().backward()
    assert clip.grad is not None
    assert not clip.grad[:, :, :4].any()
    uncut = network()
    uncut.load_state_dict(net.state_dict())
    assert torch.equal(net(clip), uncut(clip))


def test_without_mask_feedback_a_prediction_leaves_no_trace_in_masks() -> None:
    net = network({"mask_feedback": False})
    assert not streamed(net, video())[1].masks.any()
    assert streamed(network(), video())[1].masks.any()


def test_an_object_knows_the_masks_of_the_others() -> None:
    task = replace(TASK, classes=3)
    net = network(task=task)
    frame, state = video(frames=1)[:, :, 0], net.init_state(1, 32, 48)
    other = replace(state, masks=torch.stack([torch.zeros(1, 4, 6), torch.ones(1, 4, 6)], 1))
    first = net.step(frame, state)[0][:, 1]
    assert not torch.equal(net.step(frame, other)[0][:, 1], first)


def test_a_state_goes_through_a_file_and_its_size_does_not_grow(tmp_path: Path) -> None:
    net = network()
    sizes = []
    for frames in (2, 20):
        state = streamed(net, video(frames))[1]
        buffer = io.BytesIO()
        torch.save(state.to_plain(), buffer)
        sizes.append(buffer.tell())
    assert sizes[0] == sizes[1]
    buffer.seek(0)
    again = VideoState.from_plain(torch.load(buffer, weights_only=True))
    frame = video(1)[:, :, 0]
    assert torch.equal(net.step(frame, again)[0], net.step(frame, state)[0])


def test_a_state_of_another_version_is_refused() -> None:
    with pytest.raises(DataError, match="objects"):
        VideoState.from_plain({"memory": torch.zeros(1)})


def test_a_step_does_not_change_the_state_it_is_given() -> None:
    net = network()
    state = streamed(net, video())[1]
    before = {name: tensor.clone() for name, tensor in state.to_plain().items()}
    net.step(video(1)[:, :, 0], state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.to_plain().items())


@pytest.mark.slow
def test_a_long_stream_needs_no_more_memory_than_a_short_one() -> None:
    net = network(task=replace(TASK, classes=2))
    alive, peaks = memory_of_steps._Rehearsal(net), {}  # counts what lives, not what is reserved
    with torch.no_grad(), alive:
        state = net.init_state(1, 32, 32)
        for t in range(1, 201):
            state = net.step(torch.zeros(1, 1, 32, 32), state)[1]
            peaks[t] = alive.peak
    assert 0 < peaks[200] <= 1.2 * peaks[20]


@pytest.mark.parametrize("wrong", [(1, 2, 3, 32, 32), (1, 1, 3, 40, 32), (1, 1, 0, 32, 32), (1, 1)])
def test_a_clip_that_does_not_fit_is_refused(wrong: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"\(B, C, T, H, W\)"):
        network()(torch.zeros(wrong))


def test_a_frame_that_does_not_fit_its_stream_is_refused() -> None:
    net = network()
    with pytest.raises(ShapeError, match="init_state"):
        net.step(torch.zeros(1, 1, 32, 48), net.init_state(1, 32, 32))


@pytest.mark.parametrize("change", [{"memory_stride": 4}, {"classes": 1}])
def test_a_task_that_it_cannot_do_is_refused(change: dict[str, int]) -> None:
    with pytest.raises(PlanError, match="Plan this data set"):
        GDKVMSpec().build(replace(TASK, **change))


@pytest.mark.parametrize("settings", [{}, {"memory": False, "rule": "mean"}])
def test_a_description_and_weights_make_the_same_network(settings: dict[str, Any]) -> None:
    spec = GDKVMSpec(**settings)
    net = spec.build(TASK).eval()
    again = network_from_description(describe_network(spec, TASK)).eval()
    load_v1_state_dict(again, state_dict_to_v1(net))
    clip = video(2)
    assert all(torch.equal(a, b) for a, b in zip(net(clip), again(clip), strict=True))


def test_its_parameters_keep_their_names_and_order() -> None:
    net = network()
    assert list(state_dict_to_v1(net)) == list(net.state_dict())
    ordered = parameters_in_v1_order(net)
    assert [id(p) for p in ordered] == [id(p) for p in net.parameters()]


def test_gates_and_queries_do_not_decay() -> None:
    net = network()
    marked = {n for n, p in net.named_parameters() if getattr(p, "no_weight_decay", False)}
    assert marked == net.no_weight_decay()
    assert marked == {
        "recollection.memory.gates.A_log",
        "recollection.memory.gates.dt_bias",
        "transformer.query",
        "transformer.query_place",
    }


@pytest.mark.slow
@pytest.mark.parametrize("memory", [True, False])
def test_what_a_long_clip_takes_follows_from_short_ones(
    memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, task = GDKVMSpec(memory=memory), replace(TASK, classes=2)
    measures = [
        lambda: training_bytes(spec, task, (5, 32, 32), 1, bytes_per_value=2),
        lambda: inference_bytes(spec, task, (5, 32, 32)),
        lambda: training_operations(spec, task, (5, 32, 32)),
    ]
    followed = [measure() for measure in measures]
    monkeypatch.setattr(rehearsal, "_REHEARSED", (5, 5))
    assert followed == pytest.approx([measure() for measure in measures], rel=0.01)


@pytest.mark.slow
def test_training_needs_more_memory_for_longer_clips_and_predicting_hardly() -> None:
    spec, task = GDKVMSpec(), replace(TASK, classes=2)
    training = [training_bytes(spec, task, (frames, 32, 32), 2) for frames in (1, 2)]
    predicting = [inference_bytes(spec, task, (frames, 32, 32)) for frames in (1, 2)]
    assert training[1] > 1.2 * training[0]
    assert predicting[1] < 1.1 * predicting[0]


def test_a_network_is_built_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something asked for a connection")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    with torch.device("meta"):
        GDKVMSpec(size="base").build(TASK)
    assert network()(video(1)).isfinite().all()


def test_classes_are_told_apart_though_objects_share_their_weights() -> None:
    """Without anything of their own all objects would have one and the same mask."""
    torch.manual_seed(0)
    spec, task = GDKVMSpec.tiny()
    network = spec.build(task).eval()
    network.deep_supervision = False
    with torch.no_grad():
        logits = network(torch.randn(1, task.channels, 2, 32, 32))
    first, second = logits[:, 1], logits[:, 2]
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize("settings", [{}, {"memory": False}])
def test_objects_differ_from_the_first_frame_on(settings: dict[str, Any]) -> None:
    net = network(settings, replace(TASK, classes=4))
    net.deep_supervision = True
    with torch.no_grad():
        heads = net(video(frames=1))
    for head in heads:
        first, second, third = head[0, 1:]
        assert not torch.allclose(first, second)
        assert not torch.allclose(second, third)


def test_each_object_remembers_what_it_sees_itself() -> None:
    net = network({"mask_feedback": False, "sensory": False}, replace(TASK, classes=3))
    memory = streamed(net, video(frames=1))[1].memory
    assert not torch.allclose(memory[:, 0], memory[:, 1])
