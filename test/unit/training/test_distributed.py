"""Several processes give the loss, the gradient and the decisions of one with the whole batch.

The processes are forked and connected by gloo.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from nnunetlike.core.errors import PeerError, UsageError
from nnunetlike.networks import NETWORKS, NetworkTask
from nnunetlike.networks.gdkvm import GDKVMSpec
from nnunetlike.plans.topology import Topology
from nnunetlike.training.batch_share import BatchShare, OwnBatches, share_of_batch, split_batch
from nnunetlike.training.distributed import Distributed, connect
from nnunetlike.training.losses.compound import dice_and_cross_entropy
from nnunetlike.training.objectives import Batch
from nnunetlike.training.objectives.segmentation import DeepSupervision
from nnunetlike.training.objectives.video import VideoSegmentation
from nnunetlike.training.recipes import TRAINERS

pytestmark = [
    pytest.mark.ddp,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes of these tests are forked"),
]
LIMIT_S = 120
Array = npt.NDArray[np.float64]
Work = Callable[[Distributed], Any]


def in_processes(count: int, work: Work, *, timeout_s: float = 60) -> list[Any]:
    """Return what `work` returns in each process; an error becomes its text, a death None."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    started = []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        names = {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1",
                 "MASTER_PORT": port}  # fmt: skip
        child = context.Process(target=_work, args=(names, theirs, work, timeout_s))
        child.start()
        theirs.close()
        started.append((child, ours))
    found = [_answer(pipe) for _, pipe in started]
    for child, _ in started:
        child.join(LIMIT_S)
        assert child.exitcode is not None, "a process did not end"
    return found


def _answer(pipe: Any) -> Any:
    assert pipe.poll(LIMIT_S), "a process does not answer"
    try:
        return pipe.recv()
    except EOFError:
        return None


def _work(names: dict[str, str], pipe: Any, work: Work, timeout_s: float) -> None:
    torch.set_num_threads(1)
    os.environ.update(names)
    try:
        peers = connect(torch.device("cpu"), timeout_s)
        pipe.send(work(Distributed(torch.device("cpu"), "fp32", peers)))
        peers.leave()
    except Exception as error:  # noqa: BLE001 - told to the test
        traceback.print_exc()
        pipe.send(f"{type(error).__name__}: {error}")
        time.sleep(2 * (names["RANK"] == "0"))  # it keeps what the others read
    pipe.close()
    os._exit(0)


# the batch


@pytest.mark.parametrize("together", [True, False])
def test_shares_are_those_of_v1_where_it_gives_each_process_a_sample(
    golden: Path, together: bool
) -> None:
    rows = json.loads((golden / "training" / "schedules.json").read_text())
    compared = 0
    for row in rows["ddp_batch_and_oversample"]:
        expected = row["per_rank_batch_oversample_global"]
        if row["dbs"] != together or min(samples for samples, _, _ in expected) < 1:
            continue
        sizes = split_batch(row["plan_batch_size"], row["world"], shared=together)
        shares = [share_of_batch(sizes, rank, 0.33) for rank in range(row["world"])]
        for share, (samples, oversample, total) in zip(shares, expected, strict=True):
            assert (share.samples, share.total) == (samples, total)
            assert share.oversample == pytest.approx(oversample, abs=1e-12)
        compared += 1
    assert compared >= 10


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7, 9])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_every_process_gets_a_sample_and_weights_add_up(batch: int, world: int) -> None:
    sizes = split_batch(batch, world, shared=True)
    assert len(sizes) == world and min(sizes) >= 1
    assert sum(sizes) == max(batch, world) and max(sizes) - min(sizes) <= max(1, batch // 2)
    weights = [share_of_batch(sizes, rank, 0.33).weight for rank in range(world)]
    assert sum(weights) == pytest.approx(world)


def test_one_process_has_the_whole_batch_and_the_usual_rule() -> None:
    assert share_of_batch(split_batch(5, 1, shared=True), 0, 0.33) == BatchShare(
        samples=5, total=5, oversample=0.33
    )


def test_no_two_processes_make_the_same_batch() -> None:
    class Numbers:
        def batch(self, index: int) -> Any:
            return index

        def cases(self, index: int) -> list[str]:
            return [str(index)]

    own = [OwnBatches(Numbers(), share_of_batch((1, 1, 1), rank, 0.33)) for rank in range(3)]
    made: list[Any] = [source.batch(index) for index in range(4) for source in own]
    assert made == list(range(12))
    assert own[2].cases(1) == ["5"]


# losses and gradients


@pytest.fixture
def heads(golden: Path) -> Callable[[int], Any]:
    """Logits, labels, weights and expected numbers of v1 with so many processes."""

    def load(world: int) -> Any:
        arrays = np.load(golden / "training" / f"ddp_loss_world{world}.npz")
        facts = json.loads((golden / "training" / "ddp_loss.json").read_text())[f"world{world}"]
        weights = facts["ds_loss_weights"]
        logits = [torch.from_numpy(arrays[f"x{i}"]) for i in range(len(weights))]
        labels = [torch.from_numpy(arrays[f"y{i}"])[:, 0].long() for i in range(len(weights))]
        return logits, labels, weights, facts

    return load


def _losses_and_gradients(
    runtime: Distributed, logits: list[Tensor], labels: list[Tensor], weights: list[float]
) -> dict[tuple[bool, bool], tuple[float, list[Array]]]:
    """Return loss and gradients of this process by (batch Dice, v1's gradient)."""
    samples = len(logits[0]) // runtime.world_size
    own = slice(runtime.rank * samples, (runtime.rank + 1) * samples)
    found = {}
    for batch_dice, legacy in product((True, False), repeat=2):
        runtime.legacy_dice = legacy
        loss = dice_and_cross_entropy(batch_dice=batch_dice, total=runtime.total())
        inputs = [head[own].clone().requires_grad_() for head in logits]
        pairs = zip(weights, inputs, labels, strict=True)
        total = torch.stack([w * loss(x, y[own]) for w, x, y in pairs if w]).sum()
        total.backward()
        gradients = [torch.zeros_like(x) if x.grad is None else x.grad for x in inputs]
        found[batch_dice, legacy] = (float(total.detach()), [g.numpy() for g in gradients])
    return found


@pytest.mark.parametrize("world", [2, 3])
def test_distributed_losses_are_v1s_and_their_gradient_is_right_or_v1s(
    heads: Callable[[int], Any], world: int
) -> None:
    logits, labels, weights, facts = heads(world)
    work = partial(_losses_and_gradients, logits=logits, labels=labels, weights=weights)
    found = in_processes(world, work)
    for (batch_dice, legacy), rank in product(found[0], range(world)):
        loss, gradients = found[rank][batch_dice, legacy]
        v1 = facts["per_rank"][rank][f"batch_dice_{batch_dice}"]
        whole = facts[f"single_process_whole_batch batch_dice={batch_dice}"]
        assert loss == pytest.approx(v1["loss"], abs=1e-9)
        sums, first = v1["grad_sum_abs"], v1["grad_head0_first8"]
        if batch_dice and not legacy:  # averaged over processes it is that of one process
            sums = whole["grad_sum_abs_per_rank_slice"][rank]
            first = whole["grad_head0_first8_per_rank"][rank]
            gradients = [gradient / world for gradient in gradients]
        assert [float(np.abs(g).sum()) for g in gradients] == pytest.approx(sums, rel=1e-9)
        assert gradients[0].reshape(-1)[:8].tolist() == pytest.approx(first, rel=1e-6, abs=1e-12)
        mean = np.mean([part[batch_dice, legacy][0] for part in found])
        assert mean == pytest.approx(whole["loss"], abs=1e-9)


def _objective(name: str, batch_dice: bool, **settings: Any) -> nn.Module:
    torch.manual_seed(3)
    topology = Topology(((2, 2), (2, 2)), ((3, 3),) * 3)
    task = NetworkTask(channels=1, classes=3, topology=topology, base_features=4, conv_per_stage=2)
    network = NETWORKS.get(name)().build(task).double()
    objective = DeepSupervision(weights="all" if name == "unet_plus_plus" else "v1")
    return objective.build(network, batch_dice=batch_dice, **settings)


def _batch(samples: int) -> Batch:
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(samples, 1, 16, 16, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 3, (samples, 16, 16), generator=generator)
    return {"image": image, "label": label, "case_ids": ["c"] * samples}


def _gradients(objective: nn.Module, batch: Batch) -> dict[str, Array | None]:
    objective(batch).loss.backward()
    inner = getattr(objective, "module", objective)
    return {n: None if p.grad is None else p.grad.numpy() for n, p in inner.named_parameters()}


KINDS = list(product(("unet", "unet_plus_plus"), (True, False)))


def _gradients_of_share(runtime: Distributed, sizes: tuple[int, ...]) -> list[dict[str, Any]]:
    share = share_of_batch(sizes, runtime.rank, 0.33)
    whole, begin = _batch(share.total), sum(sizes[: runtime.rank])
    own = slice(begin, begin + share.samples)
    part: Batch = {"image": whole["image"][own], "label": whole["label"][own], "case_ids": []}
    found = []
    for name, batch_dice in KINDS:
        objective = _objective(name, batch_dice, total=runtime.total(), share=share.weight)
        found.append(_gradients(runtime.wrap(objective), part))
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "world"), [(2, 1), (4, 2), (5, 3), (2, 3), (5, 4)])
def test_gradients_of_a_batch_do_not_depend_on_how_many_processes_share_it(
    batch: int, world: int
) -> None:
    sizes = split_batch(batch, world, shared=True)
    found = in_processes(world, partial(_gradients_of_share, sizes=sizes))
    for kind, (name, batch_dice) in enumerate(KINDS):
        expected = _gradients(_objective(name, batch_dice), _batch(sum(sizes)))
        for rank, key in product(range(world), expected):
            gradient, one = found[rank][kind][key], expected[key]
            assert (gradient is None) == (one is None), key
            if one is not None:
                close = 1e-9 * np.abs(one).max() + 1e-15
                np.testing.assert_allclose(gradient, one, rtol=0, atol=close, err_msg=key)


def _video_objective(**settings: Any) -> nn.Module:
    torch.manual_seed(3)
    spec, task = GDKVMSpec.tiny()
    return VideoSegmentation().build(spec.build(task).double(), batch_dice=False, **settings)


def _clips(lengths: Sequence[int]) -> Batch:
    """Return a clip per number: so many of its four frames have labels."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(len(lengths), 1, 4, 16, 16, generator=generator, dtype=torch.float64)
    label = torch.randint(0, 3, (len(lengths), 4, 16, 16), generator=generator)
    for clip, labelled in zip(label, lengths, strict=True):
        clip[labelled:] = 3
    return {"image": image, "label": label, "case_ids": ["c"] * len(lengths)}


def _video_gradients_of_share(
    runtime: Distributed, lengths: tuple[int, ...]
) -> dict[str, Array | None]:
    whole, own = _clips(lengths), slice(runtime.rank, runtime.rank + 1)
    part: Batch = {"image": whole["image"][own], "label": whole["label"][own], "case_ids": []}
    return _gradients(runtime.wrap(_video_objective(total=runtime.total())), part)


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(4, 1), (0, 3)])
def test_gradients_of_clips_do_not_depend_on_how_many_processes_share_them(
    lengths: tuple[int, ...],
) -> None:
    found = in_processes(2, partial(_video_gradients_of_share, lengths=lengths))
    expected = _gradients(_video_objective(), _clips(lengths))
    for rank, key in product(range(2), expected):
        gradient, one = found[rank][key], expected[key]
        assert gradient is not None
        assert one is not None
        close = 1e-9 * np.abs(one).max() + 1e-12
        np.testing.assert_allclose(gradient, one, rtol=0, atol=close, err_msg=key)


def test_trainers_of_several_processes_are_those_of_one_under_v1s_names() -> None:
    for name, of_one in (
        ("nnUNetTrainerV2_DDP", "nnUNetTrainerV2"),
        ("nnUNetPlusPlusTrainerV2_hypDDP", "nnUNetPlusPlusTrainerV2"),
    ):
        assert {**TRAINERS.get(name).describe(), "name": of_one} == TRAINERS.get(of_one).describe()


# steps


def _step(runtime: Distributed, bad_rank: int | None) -> tuple[bool, float]:
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    wrapped = nn.parallel.DistributedDataParallel(layer)
    loss = wrapped(torch.tensor([[1.0 + 2 * runtime.rank]])).sum()
    if runtime.rank == bad_rank:
        loss = loss + torch.tensor(float("nan"))  # the gradient is finite all the same
    taken = runtime.step(loss, optimizer, clip_norm=100)
    return taken, float(layer.weight.detach())


def test_a_step_takes_the_mean_of_the_gradients() -> None:
    assert in_processes(2, partial(_step, bad_rank=None)) == [(True, 0.0), (True, 0.0)]


def test_a_loss_that_is_not_finite_in_one_process_stops_the_step_in_all() -> None:
    assert in_processes(2, partial(_step, bad_rank=1)) == [(False, 1.0), (False, 1.0)]


def _talk(runtime: Distributed) -> Any:
    runtime.meet("a place")
    return (
        runtime.any(runtime.rank == 1),
        runtime.any(False),
        runtime.gather(["x"] * runtime.rank),
        runtime.first(f"from {runtime.rank}"),
        float(runtime.sum(torch.tensor(runtime.rank + 1.0))),
        runtime.is_main,
    )


def test_processes_agree() -> None:
    found = in_processes(3, _talk)
    assert found == [(True, False, ["x"] * 3, "from 0", 6.0, rank == 0) for rank in range(3)]


def _die_or_wait(runtime: Distributed) -> Any:
    if runtime.rank == 1:
        os._exit(1)
    return runtime.any(False)


def test_who_loses_another_process_is_told_so() -> None:
    first, gone = in_processes(2, _die_or_wait)
    assert gone is None
    assert first.startswith("PeerError: another process of this run ended while process 0 was at")


def _be_late(runtime: Distributed) -> Any:
    if runtime.rank == 2:
        time.sleep(8)
    return runtime.any(False)


@pytest.mark.slow
def test_a_process_that_is_late_is_named() -> None:
    found = in_processes(3, _be_late, timeout_s=2)
    for rank in (0, 1):
        assert found[rank].startswith("PeerError: process 2 of 3 (counted from 0) did not come to")
        assert "--ddp_timeout" in found[rank]


def test_without_a_launcher_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r"MASTER_ADDR.* not set: start this with torchrun"):
        connect(torch.device("cpu"))


def test_processes_that_do_not_find_one_another_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "9", "RANK": "1", "WORLD_SIZE": "2"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PeerError, match=r"did not find one another at 127\.0\.0\.1:9"):
        connect(torch.device("cpu"), timeout_s=1)
