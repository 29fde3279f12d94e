"""Writing the gated delta memory frame by frame."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from nnunetlike.core.errors import ShapeError, UsageError
from nnunetlike.networks.gated_delta import gated_delta_rule
from nnunetlike.networks.gated_delta_frames import (
    FrameRule,
    gated_delta_frames,
    read_frame,
    write_frame,
)

RULES: list[FrameRule] = ["implicit", "sequential", "mean", "sum"]
STABLE: list[FrameRule] = ["implicit", "sequential", "mean"]
Given = dict[str, Tensor]


def given(
    tokens: int = 5, heads: int = 2, key: int = 4, value: int = 3, key_heads: int = 0
) -> Given:
    draw = torch.Generator().manual_seed(5)
    shared = (2, tokens, key_heads or heads, key)
    return {
        "state": torch.randn((2, heads, key, value), generator=draw, dtype=torch.float64),
        "k": normalize(torch.randn(shared, generator=draw, dtype=torch.float64), dim=-1),
        "v": torch.randn((2, tokens, heads, value), generator=draw, dtype=torch.float64),
        "beta": torch.rand((2, heads), generator=draw, dtype=torch.float64),
        "g": -torch.rand((2, heads), generator=draw, dtype=torch.float64),
    }


def error(made: Tensor, expected: Tensor) -> float:
    return float((made.detach() - expected.detach()).abs().max())


def test_implicit_minimises_its_loss() -> None:
    """The gradient of |S - X|^2 + beta/P sum |S^T k - v|^2 is 0 at what is written."""
    case = given()
    state = write_frame(**case).requires_grad_()
    faded = case["g"].exp()[..., None, None] * case["state"]
    recalled = torch.einsum("bphk,bhkv->bphv", case["k"], state)
    misses = (recalled - case["v"]).square().sum((1, 3)) / case["k"].shape[1]
    loss = (state - faded).square().sum() + (case["beta"] * misses).sum()
    (gradient,) = torch.autograd.grad(loss, state)
    assert float(gradient.abs().max()) < 1e-14


def test_implicit_with_one_token_is_the_delta_rule_of_a_smaller_strength() -> None:
    case = given(tokens=1)
    case["beta"] *= 20
    as_token = {"beta": (case["beta"] / (1 + case["beta"]))[:, None], "g": case["g"][:, None]}
    _, expected = gated_delta_rule(
        case["k"], case["k"], case["v"], **as_token, initial_state=case["state"]
    )
    assert error(write_frame(**case), expected) < 1e-14


@pytest.mark.parametrize("rule", ["mean", "sum"])
def test_mean_and_sum_with_one_token_are_the_delta_rule(rule: FrameRule) -> None:
    case = given(tokens=1)
    _, expected = gated_delta_rule(
        case["k"], case["k"], case["v"], case["beta"][:, None], case["g"][:, None],
        initial_state=case["state"],
    )  # fmt: skip
    assert error(write_frame(**case, rule=rule), expected) < 1e-14


def test_sequential_is_the_token_rule_with_the_gate_on_the_first_token() -> None:
    case = given(heads=4, key_heads=2)
    gates = torch.zeros(2, 5, 4).double()
    gates[:, 0] = case["g"]
    _, expected = gated_delta_rule(
        case["k"], case["k"], case["v"], case["beta"][:, None].expand(-1, 5, -1), gates,
        initial_state=case["state"], backend="sequential",
    )  # fmt: skip
    assert error(write_frame(**case, rule="sequential"), expected) < 1e-14


@pytest.mark.parametrize("rule", ["implicit", "mean", "sum"])
def test_the_order_of_tokens_does_not_matter_but_to_sequential(rule: FrameRule) -> None:
    case = given()
    turned = {**case, "k": case["k"].flip(1), "v": case["v"].flip(1)}
    assert error(write_frame(**turned, rule=rule), write_frame(**case, rule=rule)) < 1e-14
    other = write_frame(**turned, rule="sequential")
    assert error(other, write_frame(**case, rule="sequential")) > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_strength_0_only_fades(rule: FrameRule) -> None:
    case = given()
    case["beta"] *= 0
    case["g"] = torch.full_like(case["g"], math.log(0.5))
    assert error(write_frame(**case, rule=rule), 0.5 * case["state"]) < 1e-15


@pytest.mark.parametrize("rule", RULES)
def test_a_gate_of_minus_infinity_forgets(rule: FrameRule) -> None:
    case = given()
    leaf = case["g"].fill_(-math.inf).requires_grad_()
    state = write_frame(**case, rule=rule)
    assert error(state, write_frame(**{**case, "state": None}, rule=rule)) < 1e-15  # type: ignore[arg-type]
    state.sum().backward()
    assert leaf.grad is not None and bool((leaf.grad == 0).all())


@pytest.mark.parametrize("rule", RULES)
def test_heads_may_share_keys(rule: FrameRule) -> None:
    case = given(heads=6, key_heads=2)
    repeated = {**case, "k": case["k"].repeat_interleave(3, dim=2)}
    expected = write_frame(**repeated, rule=rule)
    assert error(write_frame(**case, rule=rule), expected) < 1e-14
    read = read_frame(expected, repeated["k"])
    assert error(read_frame(expected, case["k"]), read) < 1e-14


@pytest.mark.parametrize("rule", RULES)
def test_gradcheck_passes(rule: FrameRule) -> None:
    case = given(tokens=3)
    leaves = tuple(x.requires_grad_() for x in case.values())
    assert torch.autograd.gradcheck(lambda *x: write_frame(*x, rule=rule), leaves)


@pytest.mark.parametrize("rule", RULES)
def test_autocast_leaves_the_memory_in_float32(rule: FrameRule) -> None:
    case = {name: x.float() for name, x in given(tokens=64, key=16, value=16).items()}
    case["g"] = torch.full_like(case["g"], -0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = write_frame(**case, rule=rule)
        rounded = {name: case[name].bfloat16() for name in ("k", "v", "beta")}
        halved = write_frame(**{**case, **rounded}, rule=rule)
        assert read_frame(halved, rounded["k"]).dtype == torch.bfloat16
    exact = write_frame(**case, rule=rule)
    assert inside.dtype == halved.dtype == torch.float32
    assert error(inside, exact) == 0
    assert float((halved - exact).square().mean().sqrt() / exact.square().mean().sqrt()) <= 1e-2


@pytest.mark.parametrize("rule", RULES)
def test_no_argument_is_changed(rule: FrameRule) -> None:
    case = given()
    copies = {name: x.clone() for name, x in case.items()}
    write_frame(**case, rule=rule)
    assert all(torch.equal(case[name], copies[name]) for name in case)


@pytest.mark.parametrize("rule", RULES)
def test_shapes_are_found_without_numbers(rule: FrameRule) -> None:
    case = {name: x.to("meta") for name, x in given().items()}
    assert write_frame(**case, rule=rule).shape == (2, 2, 4, 3)


@pytest.mark.parametrize("rule", RULES)
def test_frames_at_once_are_frames_one_by_one(rule: FrameRule) -> None:
    case = given()
    twice = {name: torch.stack([case[name], -case[name]], 1) for name in ("k", "v")}
    gates = {name: torch.stack([case[name], case[name]], 1) for name in ("beta", "g")}
    answers, last = gated_delta_frames(
        twice["k"], **twice, **gates, rule=rule, initial_state=case["state"]
    )
    first = write_frame(**case, rule=rule)
    second = write_frame(**{**case, "state": first, "k": -case["k"], "v": -case["v"]}, rule=rule)
    assert torch.equal(last, second)
    assert torch.equal(answers[:, 0], read_frame(first, case["k"]))
    assert torch.equal(answers[:, 1], read_frame(second, -case["k"]))


def correlated_frames(frames: int, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit keys of which 0.9 is common to all, as those of neighbouring pixels are."""
    draw = torch.Generator().manual_seed(7)
    common = normalize(torch.randn(16, generator=draw), dim=0)
    own = normalize(torch.randn((frames, 1, tokens, 1, 16), generator=draw), dim=-1)
    keys = normalize(0.9 * common + math.sqrt(1 - 0.9**2) * own, dim=-1)
    values = normalize(torch.randn((frames, 1, tokens, 1, 8), generator=draw), dim=-1)
    strengths = torch.rand((frames, 1, 1), generator=draw)
    gates = -0.1 * torch.rand((frames, 1, 1), generator=draw)
    return keys, values, strengths, gates


@pytest.mark.parametrize("rule", STABLE)
def test_2000_frames_stay_bounded(rule: FrameRule) -> None:
    state, most = None, 0.0
    for frame in zip(*correlated_frames(2000, 16), strict=True):
        state = write_frame(state, *frame, rule=rule)
        most = max(most, float(state.norm()))
    assert math.isfinite(most) and most < 1e3


def test_sum_does_not_stay_bounded() -> None:
    state = None
    for frame in zip(*correlated_frames(100, 64), strict=True):
        state = write_frame(state, *frame, rule="sum")
    assert state is not None and not float(state.norm()) < 1e10


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["k", "v", "beta", "g"])
def test_nan_is_passed_on_and_raises_nothing(rule: FrameRule, name: str) -> None:
    case = given()
    case[name].view(-1)[0] = math.nan
    assert bool(write_frame(**case, rule=rule)[0, 0].isnan().any())


def test_a_strength_for_which_implicit_has_no_answer_gives_nan() -> None:
    case = given()
    case["beta"][0, 0] = -1000
    state = write_frame(**case)
    assert bool(state[0, 0].isnan().all()) and bool(state[1].isfinite().all())


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'add' for frames; choose one of implicit, sequential"):
        write_frame(**given(), rule="add")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("state", (2, 2, 3, 4)),
        ("k", (2, 6, 2, 4)),
        ("v", (2, 5, 3, 3)),
        ("beta", (2, 5, 2)),
        ("g", (2, 1)),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_all_shapes(
    name: str, shape: tuple[int, ...]
) -> None:
    case = {**given(), name: torch.zeros(shape)}
    with pytest.raises(ShapeError) as raised:
        write_frame(**case)
    assert all(f"{key} {tuple(x.shape)}" in str(raised.value) for key, x in case.items())


def test_queries_that_do_not_fit_the_memory_are_refused() -> None:
    case = given()
    with pytest.raises(ShapeError, match=r"\(2, 2, 4, 3\) and \(2, 5, 2, 3\)"):
        read_frame(case["state"], case["k"][..., :3])


@pytest.mark.parametrize("frames", [0, 3])
def test_frames_that_do_not_fit_or_are_none_are_refused(frames: int) -> None:
    tokens, gates = torch.zeros(1, frames, 4, 1, 2), torch.zeros(1, 0 if frames == 0 else 2, 1)
    with pytest.raises(ShapeError, match="one F above 0"):
        gated_delta_frames(tokens, tokens, tokens, gates, gates)
