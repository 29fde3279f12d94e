"""The gated delta rule: what it computes, in which precision, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nnunetlike.core.errors import ShapeError, UsageError
from nnunetlike.networks import NETWORKS
from nnunetlike.networks.gated_delta import gated_delta_rule, gated_delta_state

FORMS: list[dict[str, Any]] = [
    {"backend": "sequential"},
    {"backend": "torch", "chunk_size": 1},
    {"backend": "torch", "chunk_size": 3},
    {"backend": "torch", "chunk_size": 64},
]
FORM_IDS = ["sequential", "chunks of 1", "chunks of 3", "chunks of 64"]
Given = dict[str, Tensor]


def given(
    batch: int = 2,
    tokens: int = 7,
    heads: int = 2,
    key: int = 4,
    value: int = 3,
    key_heads: int = 0,
) -> Given:
    draw = torch.Generator().manual_seed(3)
    shared = (batch, tokens, key_heads or heads, key)
    own = (batch, tokens, heads)
    return {
        "q": torch.nn.functional.normalize(
            torch.randn(shared, generator=draw, dtype=torch.float64), dim=-1
        ),
        "k": torch.nn.functional.normalize(
            torch.randn(shared, generator=draw, dtype=torch.float64), dim=-1
        ),
        "v": torch.randn((*own, value), generator=draw, dtype=torch.float64),
        "beta": torch.rand(own, generator=draw, dtype=torch.float64),
        "g": -torch.rand(own, generator=draw, dtype=torch.float64),
        "initial_state": torch.randn(
            (batch, heads, key, value), generator=draw, dtype=torch.float64
        ),
    }


def worst(made: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    pairs = zip(made, expected, strict=True)
    return max(float((a.detach() - b.detach()).abs().max()) for a, b in pairs)


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_one_token_is_faded_erased_written_and_read(form: dict[str, Any]) -> None:
    key = torch.tensor([0.6, 0.8], dtype=torch.float64).reshape(1, 1, 1, 2)
    state = torch.tensor([10.0, 20.0], dtype=torch.float64).reshape(1, 1, 2, 1)
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    answers, after = gated_delta_rule(
        q=key, k=key, v=5 * one[..., None], beta=0.5 * one, g=math.log(0.5) * one,
        scale=2, initial_state=state, **form,
    )  # fmt: skip
    # Faded to (5, 10); under the key lies 11; half of 5 - 11 goes there.
    assert after.flatten().tolist() == pytest.approx([5 - 3 * 0.6, 10 - 3 * 0.8], abs=1e-14)
    assert float(answers) == pytest.approx(2 * (11 - 3), abs=1e-14)


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_strength_0_only_fades(form: dict[str, Any]) -> None:
    case = given()
    case["beta"] *= 0
    case["g"] = torch.full_like(case["g"], math.log(0.5))
    _, state = gated_delta_rule(**case, **form)
    assert float((state - case["initial_state"] * 0.5**7).abs().max()) < 1e-15


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_strength_0_and_decay_1_change_nothing(form: dict[str, Any]) -> None:
    case = given()
    case["beta"] *= 0
    case["g"] *= 0
    answers, state = gated_delta_rule(**case, scale=1, **form)
    assert torch.equal(state, case["initial_state"])
    expected = torch.einsum("bthk,bhkv->bthv", case["q"], case["initial_state"])
    assert float((answers - expected).abs().max()) < 1e-15


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_strength_1_reads_back_what_was_written(form: dict[str, Any]) -> None:
    case = given()
    case["beta"] = torch.ones_like(case["beta"])
    answers, _ = gated_delta_rule(**{**case, "q": case["k"]}, scale=1, **form)
    assert float((answers - case["v"]).abs().max()) < 1e-14


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
@pytest.mark.parametrize("gate", [-math.inf, -1e300, -1e4, -746.0])
def test_a_gate_may_forget_everything_before(form: dict[str, Any], gate: float) -> None:
    case = given()
    case["g"][:, 4] = gate
    after = {name: x[:, 4:] for name, x in case.items() if name != "initial_state"}
    answers, state = gated_delta_rule(**case, **form)
    made = answers[:, 4:], state
    assert worst(made, gated_delta_rule(**after, backend="sequential")) < 1e-12


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_gradients_of_extreme_gates_are_finite(form: dict[str, Any]) -> None:
    case = given()
    case["g"][:, ::2] = torch.tensor([-math.inf, -1e4, -1e300, -800.0]).double()[None, :, None]
    leaves = {name: x.requires_grad_() for name, x in case.items()}
    answers, state = gated_delta_rule(**leaves, **form)
    (answers.sum() + state.sum()).backward()
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in leaves.values())


def test_float32_keeps_weak_gates_that_follow_strong_ones() -> None:
    case = given(tokens=60)
    case["g"][:, ::5] = -1e4
    exact = gated_delta_rule(**case, backend="sequential")
    single = gated_delta_rule(**{name: x.float() for name, x in case.items()}, backend="torch")
    assert worst(single, exact) < 1e-5


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_gradcheck_passes(form: dict[str, Any]) -> None:
    case = given(batch=1)
    leaves = tuple(x.requires_grad_() for x in case.values())

    def rule(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return gated_delta_rule(*tensors[:5], initial_state=tensors[5], **form)

    assert torch.autograd.gradcheck(rule, leaves)


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_heads_may_share_keys(form: dict[str, Any]) -> None:
    case = given(heads=6, key_heads=2)
    repeated = {name: case[name].repeat_interleave(3, dim=2) for name in ("q", "k")}
    expected = gated_delta_rule(**{**case, **repeated}, backend="sequential")
    assert worst(gated_delta_rule(**case, **form), expected) < 1e-14


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_the_memory_alone_is_that_of_the_rule(form: dict[str, Any]) -> None:
    case = given(heads=4, key_heads=2)
    _, expected = gated_delta_rule(**case, **form)
    del case["q"]
    assert torch.equal(gated_delta_state(**case, **form), expected)


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_no_argument_is_changed(form: dict[str, Any]) -> None:
    case = given()
    copies = {name: x.clone() for name, x in case.items()}
    gated_delta_rule(**case, **form)
    assert all(torch.equal(case[name], copies[name]) for name in case)


def test_no_initial_state_is_an_empty_one_and_scale_is_that_of_the_keys() -> None:
    case = given()
    zeros = {**case, "initial_state": torch.zeros_like(case["initial_state"])}
    expected = gated_delta_rule(**zeros, scale=0.5)
    del case["initial_state"]
    assert worst(gated_delta_rule(**case), expected) == 0


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
def test_autocast_leaves_memory_and_gates_in_float32(form: dict[str, Any]) -> None:
    case = {name: x.float() for name, x in given(tokens=70).items()}
    exact = gated_delta_rule(**case, **form)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gated_delta_rule(**case, **form)
    assert inside[1].dtype == torch.float32
    assert worst(inside, exact) == 0


@pytest.mark.parametrize("form", FORMS, ids=FORM_IDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_costs_1_percent_at_most(form: dict[str, Any], dtype: torch.dtype) -> None:
    case = {name: x.float() for name, x in given(tokens=256, key=64, value=32).items()}
    exact = gated_delta_rule(**case, **form)
    tokens = {name: case[name].to(dtype) for name in ("q", "k", "v", "beta")}
    answers, state = gated_delta_rule(**{**case, **tokens}, **form)
    assert (answers.dtype, state.dtype) == (dtype, torch.float32)
    for made, expected in zip((answers, state), exact, strict=True):
        error = (made.float() - expected).square().mean().sqrt() / expected.square().mean().sqrt()
        assert float(error) <= 1e-2


def test_shapes_are_found_without_numbers() -> None:
    case = {name: x.to("meta") for name, x in given(heads=4, key_heads=2).items()}
    answers, state = gated_delta_rule(**case)
    assert (answers.shape, state.shape) == ((2, 7, 4, 3), (2, 4, 4, 3))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("q", (2, 7, 2, 5)),
        ("k", (2, 6, 2, 4)),
        ("v", (2, 7, 2)),
        ("beta", (2, 7, 1)),
        ("g", (1, 7, 2)),
        ("initial_state", (2, 2, 3, 4)),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_all_shapes(
    name: str, shape: tuple[int, ...]
) -> None:
    case = {**given(), name: torch.zeros(shape)}
    with pytest.raises(ShapeError) as error:
        gated_delta_rule(**case)
    assert all(f"{key} {tuple(x.shape)}" in str(error.value) for key, x in case.items())


def test_no_token_is_refused() -> None:
    with pytest.raises(ShapeError, match="at least one token"):
        gated_delta_rule(**given(tokens=0))


def test_value_heads_are_a_multiple_of_key_heads() -> None:
    with pytest.raises(ShapeError, match="H a multiple of J"):
        gated_delta_rule(**given(heads=3, key_heads=2))


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'cuda'; choose one of auto, torch, sequential, fla"):
        gated_delta_rule(**given(), backend="cuda")  # type: ignore[arg-type]


def test_a_chunk_has_a_token() -> None:
    with pytest.raises(UsageError, match="chunk_size is 0"):
        gated_delta_rule(**given(), chunk_size=0)


def test_the_memory_is_no_network() -> None:
    assert not any("delta" in name for name in NETWORKS.names())


@pytest.mark.parametrize("at", [1, 20, 63, 64, 65, 99])
def test_random_tokens_split_anywhere_give_the_numbers_of_one_pass(at: int) -> None:
    generator = torch.Generator().manual_seed(at)
    q, k = (
        functional.normalize(torch.randn(2, 100, 2, 8, generator=generator).double(), dim=-1)
        for _ in range(2)
    )
    v = torch.randn(2, 100, 4, 5, generator=generator).double()
    beta = torch.rand(2, 100, 4, generator=generator).double()
    g = -torch.rand(2, 100, 4, generator=generator).double()
    whole, last = gated_delta_rule(q, k, v, beta, g)
    first, state = gated_delta_rule(*(x[:, :at] for x in (q, k, v, beta, g)))
    rest, end = gated_delta_rule(*(x[:, at:] for x in (q, k, v, beta, g)), initial_state=state)
    assert (torch.cat([first, rest], 1) - whole).abs().max() <= 1e-12
    assert (end - last).abs().max() <= 1e-12
