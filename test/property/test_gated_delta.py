"""The gated delta rule does not depend on how tokens are cut, padded, batched or permuted."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from nnunetlike.networks.gated_delta import gated_delta_rule
from nnunetlike.networks.gated_delta_frames import FrameRule, gated_delta_frames

Case = dict[str, Tensor]
GATES = (0.0, -1e-9, -0.05, -1.0, -20.0, -1e4, -math.inf)
STRENGTHS = (0.0, 0.3, 1.0, 2.0)
RULES = st.sampled_from(("implicit", "sequential", "mean"))


@st.composite
def cases(draw: st.DrawFn, most_tokens: int = 40) -> Case:
    """Unit keys; among the gates and strengths are the most extreme ones."""
    batch, heads, shared = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 3))
    tokens, key, value = draw(st.integers(1, most_tokens)), *(draw(st.integers(1, 6)) for _ in "kv")
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    def choice(values: tuple[float, ...], *shape: int) -> Tensor:
        among = torch.tensor(values, dtype=torch.float64)
        picked = among[torch.randint(len(values), shape, generator=random)]
        weight = torch.rand(shape, generator=random, dtype=torch.float64)
        return torch.where(weight < 0.5, picked, weight * (1 if values[1] > 0 else -1))

    every = (batch, tokens, heads * shared)
    return {
        "q": normalize(normal(batch, tokens, heads, key), dim=-1),
        "k": normalize(normal(batch, tokens, heads, key), dim=-1),
        "v": normal(*every, value),
        "beta": choice(STRENGTHS, *every),
        "g": choice(GATES, *every),
        "initial_state": normal(batch, heads * shared, key, value),
    }


def worst(made: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(made, expected, strict=True))


@given(case=cases(), size=st.integers(1, 50))
@settings(deadline=None, max_examples=60)
def test_the_size_of_chunks_does_not_matter(case: Case, size: int) -> None:
    expected = gated_delta_rule(**case, backend="sequential")
    assert worst(gated_delta_rule(**case, chunk_size=size), expected) <= 1e-12


@given(case=cases(), size=st.integers(1, 50))
@settings(deadline=None, max_examples=40)
def test_gradients_are_those_of_the_reference(case: Case, size: int) -> None:
    gradients = []
    for form in ({"backend": "sequential"}, {"backend": "torch", "chunk_size": size}):
        leaves = {name: x.clone().requires_grad_() for name, x in case.items()}
        answers, state = gated_delta_rule(**leaves, **form)  # type: ignore[arg-type]
        loss = (answers * case["v"]).sum() + (state * case["initial_state"]).sum()
        gradients.append(torch.autograd.grad(loss, list(leaves.values())))
    for ours, reference in zip(*reversed(gradients), strict=True):
        assert float((ours - reference).abs().max()) <= 1e-10 * max(1, float(reference.abs().max()))


@given(case=cases(), cut=st.floats(0, 1), size=st.integers(1, 50))
@settings(deadline=None, max_examples=60)
def test_a_sequence_may_be_split_where_the_memory_is_carried_on(
    case: Case, cut: float, size: int
) -> None:
    tokens = case["q"].shape[1]
    at = min(max(1, round(cut * tokens)), max(1, tokens - 1))
    parts, state = [], case["initial_state"]
    for span in (slice(0, at), slice(at, tokens)):
        if span.start < span.stop:
            part = {name: x[:, span] for name, x in case.items() if name != "initial_state"}
            answers, state = gated_delta_rule(**part, initial_state=state, chunk_size=size)
            parts.append(answers)
    expected = gated_delta_rule(**case, chunk_size=size)
    assert worst((torch.cat(parts, 1), state), expected) <= 1e-12


@given(case=cases(), extra=st.integers(1, 20))
@settings(deadline=None, max_examples=30)
def test_tokens_of_zeros_at_the_end_change_nothing(case: Case, extra: int) -> None:
    padded = {
        name: torch.cat([x, x.new_zeros(x.shape[0], extra, *x.shape[2:])], 1)
        for name, x in case.items()
        if name != "initial_state"
    }
    answers, state = gated_delta_rule(**padded, initial_state=case["initial_state"], chunk_size=8)
    made = answers[:, : case["q"].shape[1]], state
    assert worst(made, gated_delta_rule(**case, chunk_size=8)) <= 1e-12


@given(case=cases(), cut=st.floats(0, 1))
@settings(deadline=None, max_examples=30)
def test_later_tokens_change_no_answer_before_them(case: Case, cut: float) -> None:
    at = round(cut * (case["q"].shape[1] - 1))
    before = gated_delta_rule(**case, chunk_size=8)[0][:, :at]
    for name in ("q", "k", "v", "beta"):
        case[name][:, at:] = 7
    assert torch.equal(gated_delta_rule(**case, chunk_size=8)[0][:, :at], before)


@given(case=cases(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_cases_of_a_batch_do_not_meet(case: Case, seed: int) -> None:
    order = torch.randperm(len(case["q"]), generator=torch.Generator().manual_seed(seed))
    answers, state = gated_delta_rule(**case)
    permuted = gated_delta_rule(**{name: x[order] for name, x in case.items()})
    assert worst(permuted, (answers[order], state[order])) <= 1e-12


@given(case=cases(), seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=30)
def test_heads_do_not_meet(case: Case, seed: int) -> None:
    sharing = case["v"].shape[2] // case["k"].shape[2]
    for name in ("q", "k"):
        case[name] = case[name].repeat_interleave(sharing, dim=2)
    order = torch.randperm(case["v"].shape[2], generator=torch.Generator().manual_seed(seed))
    answers, state = gated_delta_rule(**case)
    permuted = {name: x[:, :, order] for name, x in case.items() if name != "initial_state"}
    made = gated_delta_rule(**permuted, initial_state=case["initial_state"][:, order])
    assert worst(made, (answers[:, :, order], state[:, order])) <= 1e-12


@given(case=cases(most_tokens=200))
@settings(deadline=None, max_examples=30)
def test_float32_errs_by_rounding_only(case: Case) -> None:
    exact = gated_delta_rule(**case, backend="sequential")
    single = {name: x.float() for name, x in case.items()}
    size = max(1, *(float(x.abs().max()) for x in (*exact, case["v"], case["initial_state"])))
    assert worst(gated_delta_rule(**single), exact) <= 2e-5 * size


@given(case=cases())
@settings(deadline=None, max_examples=30)
def test_bfloat16_errs_by_the_rounding_of_its_inputs_only(case: Case) -> None:
    rounded = {name: x.bfloat16() for name, x in case.items()}
    exact = gated_delta_rule(**{name: x.double() for name, x in rounded.items()})
    answers, state = gated_delta_rule(**rounded)
    size = max(1, *(float(x.abs().max()) for x in (*exact, case["v"], case["initial_state"])))
    assert state.dtype == torch.float32 and answers.dtype == torch.bfloat16
    assert float((state - exact[1]).abs().max()) <= 2e-5 * size
    assert float((answers - exact[0]).abs().max()) <= 2**-8 * size


@given(seed=st.integers(0, 2**32 - 1), strength=st.sampled_from(STRENGTHS))
@settings(deadline=None, max_examples=4)
def test_20000_tokens_stay_finite(seed: int, strength: float) -> None:
    """Without decay and with unit keys, a write lengthens the memory by what it adds at most."""
    random = torch.Generator().manual_seed(seed)
    keys = normalize(torch.randn((1, 20_000, 1, 8), generator=random) + 2, dim=-1)
    values = 0.01 * torch.randn((1, 20_000, 1, 4), generator=random)
    gates = torch.zeros(1, 20_000, 1)
    answers, state = gated_delta_rule(keys, keys, values, gates + strength, gates)
    assert bool(answers.isfinite().all())
    assert float(state.norm()) <= strength * float(values.norm(dim=-1).sum()) * 1.01


@given(case=cases(), rule=RULES, tokens=st.integers(1, 9), frames=st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_clips_may_be_split_between_any_two_frames(
    case: Case, rule: FrameRule, tokens: int, frames: int
) -> None:
    whole = {name: case[name].repeat_interleave(frames * tokens, 1) for name in "qkv"}
    clip = {
        name: x[:, : frames * tokens].unflatten(1, (frames, tokens)) for name, x in whole.items()
    }
    gates = {
        name: case[name].repeat_interleave(frames, 1)[:, :frames].clamp(max=1)
        for name in ("beta", "g")
    }
    state, parts = case["initial_state"], []
    for frame in range(frames):
        one = {name: x[:, frame : frame + 1] for name, x in (clip | gates).items()}
        answers, state = gated_delta_frames(**one, rule=rule, initial_state=state)
        parts.append(answers)
    expected = gated_delta_frames(**clip, **gates, rule=rule, initial_state=case["initial_state"])
    assert worst((torch.cat(parts, 1), state), expected) <= 1e-12


@given(case=cases(), rule=RULES, seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=40)
def test_a_frame_never_moves_the_memory_away_from_what_it_writes(
    case: Case, rule: FrameRule, seed: int
) -> None:
    """With values that some memory holds exactly, a write leads no farther away from it."""
    random = torch.Generator().manual_seed(seed)
    target = torch.randn(case["initial_state"].shape, generator=random, dtype=torch.float64)
    sharing = case["v"].shape[2] // case["k"].shape[2]
    keys = case["k"].repeat_interleave(sharing, 2)
    values = torch.einsum("bthk,bhkv->bthv", keys, target)
    strengths = case["beta"][:, :1].clamp(max=1)
    _, state = gated_delta_frames(
        keys[:, None], keys[:, None], values[:, None], strengths, torch.zeros_like(strengths),
        rule=rule, initial_state=case["initial_state"],
    )  # fmt: skip
    before = (case["initial_state"] - target).norm(dim=(-2, -1))
    after = (state - target).norm(dim=(-2, -1))
    assert bool((after <= before * (1 + 1e-12)).all())
