"""The memory against an independent recurrence in float64, with its gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunetlike.networks.gated_delta import gated_delta_rule, gated_delta_state
from nnunetlike.networks.gated_delta_frames import gated_delta_frames, write_frame

TOKENS = [
    "single_step", "tiny", "clip10", "chunk64", "ragged65", "nogate", "beta1", "stronggate",
    "corrkeys", "framed10x16", "recall", "swap", "gdkvm_256px",
]  # fmt: skip
FRAMES = {
    "block_mean_a": "mean",
    "block_sum_a": "sum",
    "block_implicit_a": "implicit",
    "block_tokenseq_a": "sequential",
}
FORMS: list[dict[str, Any]] = [
    {"backend": "sequential"},
    *({"backend": "torch", "chunk_size": size} for size in (1, 7, 16, 64, 256, 1000)),
]
INPUTS = ("q", "k", "v", "beta", "g")


@pytest.fixture(scope="module")
def folder(shared: Path) -> Path:
    return shared / "golden" / "gated_delta" / "open"


def case(folder: Path, name: str) -> dict[str, Tensor]:
    with np.load(folder / f"{name}.npz") as arrays:
        numbers = {key: arrays[key] for key in arrays if arrays[key].dtype.kind in "fiu"}
    return {key: torch.from_numpy(np.asarray(array)) for key, array in numbers.items()}


def inputs(given: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    names = [*INPUTS, *({"initial_state"} & given.keys())]
    return {name: given[name].to(dtype, copy=True) for name in names}


def worst(answers: Tensor, state: Tensor, given: dict[str, Tensor]) -> float:
    errors = (answers - given["o"]).abs().max(), (state - given["final_state"]).abs().max()
    return float(max(errors))


def assert_gradients(leaves: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    for name, leaf in leaves.items():
        expected = given[f"d{name}"]
        assert leaf.grad is not None
        error = (leaf.grad - expected).abs().max() / expected.abs().max().clamp(min=1e-30)
        assert float(error) <= 1e-10 or torch.equal(leaf.grad, expected), name


def test_every_golden_case_is_compared(folder: Path) -> None:
    facts = json.loads((folder / "manifest.json").read_text())
    assert [known["name"] for known in facts["cases"]] == TOKENS
    assert {known["name"] for known in facts["block_cases"]} == set(FRAMES)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", TOKENS)
def test_answers_and_memory_are_the_golden_ones(
    folder: Path, name: str, form: dict[str, Any]
) -> None:
    given = case(folder, name)
    made = gated_delta_rule(**inputs(given, torch.float64), scale=float(given["scale"]), **form)
    assert worst(*made, given) <= 1e-11
    rounded = gated_delta_rule(**inputs(given, torch.float32), scale=float(given["scale"]), **form)
    assert worst(*rounded, given) <= (5e-6 if form["backend"] == "sequential" else 1e-5)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("name", [name for name in TOKENS if name != "gdkvm_256px"])
def test_gradients_are_the_golden_ones(folder: Path, name: str, form: dict[str, Any]) -> None:
    given = case(folder, name)
    leaves = {key: x.requires_grad_() for key, x in inputs(given, torch.float64).items()}
    answers, state = gated_delta_rule(**leaves, scale=float(given["scale"]), **form)
    loss = (answers * given["w_o"]).sum() + (state * given["w_S"]).sum()
    assert float(loss.detach()) == pytest.approx(float(given["loss"]), rel=1e-11, abs=1e-11)
    loss.backward()
    assert_gradients(leaves, given)


@pytest.mark.parametrize("name", ["ragged65", "swap", "gdkvm_256px"])
def test_the_memory_alone_is_the_golden_one(folder: Path, name: str) -> None:
    given = case(folder, name)
    arguments = inputs(given, torch.float64)
    del arguments["q"]
    error = gated_delta_state(**arguments) - given["final_state"]
    assert float(error.abs().max()) <= 1e-11


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_the_golden_ones(folder: Path, name: str) -> None:
    given, rule = case(folder, name), FRAMES[name]
    leaves = {key: x.requires_grad_() for key, x in inputs(given, torch.float64).items()}
    answers, state = gated_delta_frames(**leaves, rule=rule, scale=float(given["scale"]))
    assert worst(answers.detach(), state.detach(), given) <= 1e-11
    ((answers * given["w_o"]).sum() + (state * given["w_S"]).sum()).backward()
    assert_gradients(leaves, given)
    rounded = inputs(given, torch.float32)
    assert worst(*gated_delta_frames(**rounded, rule=rule, scale=float(given["scale"])), given) < (
        1e-5
    )


@pytest.mark.parametrize("name", FRAMES)
def test_the_memory_after_each_frame_is_the_golden_one(folder: Path, name: str) -> None:
    given = case(folder, name)
    state = given["initial_state"]
    for frame in range(given["k"].shape[1]):
        parts = [given[key][:, frame] for key in INPUTS[1:]]
        state = write_frame(state, *parts, rule=FRAMES[name])
        assert float((state - given["state_per_frame"][:, frame]).abs().max()) <= 1e-11


def test_a_frame_of_golden_tokens_may_be_written_at_once(folder: Path) -> None:
    """`framed10x16` fades at the first token of a frame and has one strength per frame."""
    given = case(folder, "framed10x16")
    state = None
    for frame in range(10):
        tokens = slice(16 * frame, 16 * (frame + 1))
        key, value = given["k"][:, tokens], given["v"][:, tokens]
        gates = given["beta"][:, 16 * frame], given["g"][:, 16 * frame]
        state = write_frame(state, key, value, *gates, rule="sequential")
    assert state is not None
    assert float((state - given["final_state"]).abs().max()) <= 1e-11


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_golden_swaps_permute_the_rows_of_the_memory(folder: Path, form: dict[str, Any]) -> None:
    given = case(folder, "swap")
    expected = given["initial_state"].clone()
    for t in range(given["swap_a"].shape[1]):
        for head in range(expected.shape[1]):
            pair = [int(given["swap_a"][0, t, head]), int(given["swap_b"][0, t, head])]
            expected[0, head, pair] = expected[0, head, pair[::-1]]
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        _, state = gated_delta_rule(**inputs(given, dtype), scale=1.0, **form)
        assert float((state - expected).abs().max()) <= tolerance


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_golden_recall_reads_the_last_value_written(folder: Path, form: dict[str, Any]) -> None:
    given = case(folder, "recall")
    answers, _ = gated_delta_rule(**inputs(given, torch.float64), scale=1.0, **form)
    assert float((answers - last_written(given)).abs().max()) <= 1e-13


def test_an_additive_memory_fails_golden_recall(folder: Path) -> None:
    given = case(folder, "recall")
    state = (given["k"][..., None] * given["v"][..., None, :]).cumsum(1)
    answers = (given["q"][..., None] * state).sum(-2)
    assert float((answers - last_written(given)).abs().max()) > 1


def last_written(given: dict[str, Tensor]) -> Tensor:
    expected = torch.zeros_like(given["v"])
    for head in range(expected.shape[2]):
        held: dict[int, Tensor] = {}
        for t in range(expected.shape[1]):
            held[int(given["write_index"][0, t, head])] = given["v"][0, t, head]
            known = held.get(int(given["read_index"][0, t, head]))
            if known is not None:
                expected[0, t, head] = known
    return expected
