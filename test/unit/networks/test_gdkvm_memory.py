"""Keys, gates and values on top of the memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from nnunetlike.networks.gated_delta_frames import write_frame
from nnunetlike.networks.gdkvm_blocks import waves
from nnunetlike.networks.gdkvm_memory import (
    Gates,
    KeyEncoder,
    KeyPixelFusion,
    KeyValueMemory,
    with_others,
)
from nnunetlike.networks.gdkvm_sizes import SMALL

SIZES = replace(SMALL, heads=3, embed=12, key=8)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def unit_keys(tokens: int) -> torch.Tensor:
    return functional.normalize(torch.randn(2, tokens, 1, SIZES.key), dim=-1)


def test_what_is_written_strongly_is_read_back() -> None:
    memory = KeyValueMemory(SIZES, "sequential")
    torch.nn.init.constant_(memory.gates.strength.bias, 40)
    key, value = torch.eye(8)[None, :4, None].expand(2, -1, -1, -1), torch.randn(4, 12, 2, 2)
    state = memory.write(torch.randn(2, 2, 3, 8, 4), key, value)
    torch.testing.assert_close(memory.read(state, key, 2, 2), value)


def test_each_object_has_a_memory_of_its_own() -> None:
    memory, key = KeyValueMemory(SIZES, "implicit"), unit_keys(4)
    value = torch.randn(4, 12, 2, 2)
    changed = value.clone()
    changed[1] += 1  # the second object of the first clip
    empty = torch.zeros(2, 2, 3, 8, 4)
    before, after = memory.write(empty, key, value), memory.write(empty, key, changed)
    same = [[torch.equal(before[b, o], after[b, o]) for o in range(2)] for b in range(2)]
    assert same == [[True, False], [True, True]]


def test_objects_and_heads_are_written_as_the_rule_says() -> None:
    memory, key = KeyValueMemory(SIZES, "implicit"), unit_keys(4)
    value, before = torch.randn(4, 12, 2, 2), torch.randn(2, 2, 3, 8, 4)
    strength, log_decay = memory.gates(value)
    after = memory.write(before, key, value)
    for clip, thing, head in [(0, 0, 0), (1, 0, 2), (1, 1, 1)]:
        row = 2 * clip + thing
        alone = write_frame(
            before[clip, thing, head][None, None],
            key[clip][None],
            value[row, 4 * head : 4 * head + 4].flatten(1).T[None, :, None],
            strength[row, head].reshape(1, 1),
            log_decay[row, head].reshape(1, 1),
        )
        torch.testing.assert_close(after[clip, thing, head], alone[0, 0])


@pytest.mark.parametrize(("rule", "largest"), [("implicit", 20), ("mean", 1), ("sequential", 1)])
def test_strengths_are_within_what_the_rule_stands(rule: str, largest: float) -> None:
    gates = Gates(12, 3, rule)
    torch.nn.init.normal_(gates.strength.weight)
    strength = gates(100 * torch.randn(64, 12, 2, 2))[0]
    assert strength.min() >= 0
    assert strength.max() <= largest
    assert strength.max() > 0.9 * largest


def test_gates_are_full_precision_under_autocast() -> None:
    gates = Gates(12, 3, "implicit")
    with torch.autocast("cpu", torch.bfloat16):
        strength, log_decay = gates(torch.randn(2, 12, 2, 2, dtype=torch.bfloat16))
    assert strength.dtype == log_decay.dtype == torch.float32


def test_frames_of_speckle_can_ask_by_position() -> None:
    keys = KeyEncoder(16, SIZES)
    key = keys(torch.zeros(1, 16, 6, 6), torch.zeros(1, 12, 6, 6))[0, :, 0]
    alike = key @ key.T
    assert alike.fill_diagonal_(0).max() < 0.999


def test_positions_do_not_depend_on_the_resolution() -> None:
    coarse, fine = (waves(4, n, n, torch.device("cpu")) for n in (5, 15))
    torch.testing.assert_close(coarse[:, 1, 2], fine[:, 4, 7])


def test_fusion_weighs_the_key_of_token_and_frame_against_the_pixels() -> None:
    fusion = KeyPixelFusion(8, 12)
    key, pixels = torch.randn(1, 8, 3, 3), torch.randn(1, 12, 3, 3)
    with torch.no_grad():
        fusion.gate.bias.fill_(1e4)
        whole = key + key.mean((2, 3), keepdim=True)
        torch.testing.assert_close(fusion(key, pixels), whole)
        fusion.gate.bias.fill_(-1e4)
        local = fusion.project(fusion.reduce(pixels).relu())
        torch.testing.assert_close(fusion(key, pixels), local)


def test_the_mask_of_the_others_is_that_of_all_others() -> None:
    masks = torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1)
    pairs = with_others(masks)[:, :, 0, 0]
    torch.testing.assert_close(pairs, torch.tensor([[0.1, 0.5], [0.2, 0.4], [0.3, 0.3]]))
