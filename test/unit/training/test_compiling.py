"""When a training is compiled, and that it then learns the same."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import nn

from nnunetlike.networks import NetworkTask
from nnunetlike.networks.compiling import compiled_forward, is_compiled
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.plans.topology import Topology
from nnunetlike.training.compiling import WORTHWHILE, compiled, why_not
from nnunetlike.training.objectives.segmentation import DeepSupervision
from nnunetlike.training.optimizers import PolySGD
from nnunetlike.training.runtime import Precision, SingleProcess

CPU = torch.device("cpu")
TASK = NetworkTask(
    channels=1, classes=3, base_features=4, conv_per_stage=1,
    topology=Topology.of([[2, 2]] * 2, [[3, 3]] * 3),
)  # fmt: skip
SHAPE = (2, 1, 16, 16)


def made(checkpointed: bool = False) -> nn.Module:
    torch.manual_seed(0)
    network = UNetSpec(checkpoint_nodes=checkpointed).build(TASK)
    return DeepSupervision().build(network, batch_dice=False)


def learnt(reason: str | None, steps: int = 3) -> tuple[list[float], nn.Module]:
    """Return losses of training steps, and the objective after them."""
    objective, runtime = made(), SingleProcess(CPU)
    draw = torch.Generator().manual_seed(1)
    batch: Any = {
        "image": torch.randn(SHAPE, generator=draw),
        "label": torch.randint(0, 3, (2, 16, 16), generator=draw),
        "case_ids": ["a", "b"],
    }
    optimizer = PolySGD(lr=0.01, momentum=0.99).build(objective.parameters())
    losses = []
    with compiled(objective, runtime, SHAPE, reason):
        assert is_compiled(objective.get_submodule("network")) == (reason is None)
        for _ in range(steps):
            loss = objective.train()(batch).loss
            losses.append(loss.item())
            assert runtime.step(loss, optimizer, 12.0)
    return losses, objective


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")
def test_a_compiled_training_learns_what_an_eager_one_does() -> None:
    expected, eager = learnt("as asked")
    found, ours = learnt(None)
    assert found == pytest.approx(expected, abs=1e-5)
    weights = eager.state_dict()
    assert list(ours.state_dict()) == list(weights)
    for name, value in ours.state_dict().items():
        assert torch.allclose(value, weights[name], atol=1e-4), name
        assert value.is_contiguous(), name


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")
def test_a_head_of_weight_0_does_not_decay_and_takes_gradients_again_afterwards() -> None:
    _, before = learnt("as asked", steps=0)
    _, after = learnt(None)
    heads = [objective.get_submodule("network.heads.1") for objective in (before, after)]
    assert torch.equal(heads[0].weight, heads[1].weight)
    assert all(parameter.requires_grad for parameter in after.parameters())


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")
def test_nothing_is_left_to_compile_after_the_rehearsal() -> None:
    from torch._dynamo.utils import counters

    objective = made()
    batch: Any = {"image": torch.randn(SHAPE), "label": torch.zeros(2, 16, 16)}
    with compiled(objective, SingleProcess(CPU), SHAPE, None):
        assert objective.leaves_heads_out is False
        graphs = dict(counters["stats"])
        objective.train()(batch).loss.backward()
        with torch.no_grad():
            objective.eval()(batch)
        assert dict(counters["stats"]) == graphs
    assert objective.leaves_heads_out is True


@pytest.mark.slow
@pytest.mark.usefixtures("compiler")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:torch")
def test_the_rehearsal_leaves_weights_and_random_numbers_alone() -> None:
    objective = made()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    state = torch.get_rng_state()
    with compiled(objective, SingleProcess(CPU), SHAPE, None):
        assert torch.equal(torch.get_rng_state(), state)
        for name, value in objective.state_dict().items():
            assert torch.equal(value, before[name])
        assert all(parameter.grad is None for parameter in objective.parameters())


def test_a_backward_pass_that_cannot_be_compiled_is_told_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
            return value.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            raise RuntimeError("C++ compile error\nin line 1")

    def as_compiled(forward: Any, **_: Any) -> Any:
        return lambda image: [Fails.apply(head) for head in forward(image)]

    monkeypatch.setattr(torch, "compile", as_compiled)
    objective = made()
    with compiled(objective, SingleProcess(CPU), SHAPE, None):
        network = objective.get_submodule("network")
        assert not is_compiled(network)
        assert network.training
        (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
        assert record.getMessage().endswith("says: C++ compile error")
        batch: Any = {"image": torch.zeros(SHAPE), "label": torch.zeros(2, 16, 16)}
        objective(batch).loss.backward()
    assert compiled_forward(network) is None


def test_what_is_no_fault_of_the_compiler_is_raised() -> None:
    objective = made()
    with pytest.raises(RuntimeError), compiled(objective, SingleProcess(CPU), (2, 7, 16, 16), None):
        pass


def reason(wish: Any = "auto", precision: Precision = "bf16", **changes: Any) -> str | None:
    settings = {"steps": 250_000, "repeatable": False, "checkpointed": False, **changes}
    network = made(settings.pop("checkpointed")).get_submodule("network")
    return why_not(wish, network, SingleProcess(CPU, precision), **settings)


def test_a_long_training_in_bfloat16_on_a_cpu_is_compiled_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert reason() is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"wish": "off"}, "as asked"),
        ({"precision": "fp32"}, "fp32 stays as it was, to the last bit"),
        ({"repeatable": True}, "results are to be repeatable"),
        ({"steps": WORTHWHILE - 1}, f"{WORTHWHILE - 1} steps are too few"),
        ({"checkpointed": True}, "computed again to save memory"),
    ],
)
def test_the_reason_not_to_compile_is_told(changes: dict[str, Any], expected: str) -> None:
    assert expected in str(reason(**changes))


def test_what_is_asked_for_is_done_whatever_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: name)
    assert reason("on", "fp32", steps=1, repeatable=True, checkpointed=True) is None


def test_what_cannot_be_compiled_is_not_although_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert "no C++ compiler" in str(reason("on"))
