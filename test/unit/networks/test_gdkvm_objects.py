"""Summaries of objects, and the queries that use them."""

from __future__ import annotations

import pytest
import torch

from nnunetlike.networks.gdkvm_objects import ObjectSummarizer, QueryTransformer, _bias
from nnunetlike.networks.gdkvm_sizes import SMALL


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_half_of_the_summaries_are_of_the_object_and_half_of_the_rest() -> None:
    summarizer, value = ObjectSummarizer(SMALL), torch.randn(1, SMALL.embed, 4, 6)
    half = SMALL.queries // 2
    nothing, all_of_it = (summarizer(value, torch.full((1, 4, 6), p)) for p in (0.0, 1.0))
    assert nothing.shape == (1, SMALL.queries, SMALL.embed + 1)
    assert not nothing[:, :half].any()
    assert nothing[:, half:].any()
    assert all_of_it[:, :half].any()
    assert not all_of_it[:, half:].any()


def test_summaries_do_not_depend_on_the_resolution() -> None:
    summarizer = ObjectSummarizer(SMALL)
    value, mask = torch.ones(1, SMALL.embed, 4, 4), torch.full((1, 4, 4), 0.3)
    fine = summarizer(value.repeat(1, 1, 4, 4), mask.repeat(1, 4, 4))
    torch.testing.assert_close(summarizer(value, mask), fine, rtol=0.1, atol=0.05)


def test_what_is_outside_of_the_mask_does_not_enter_its_summaries() -> None:
    summarizer, value = ObjectSummarizer(SMALL), torch.randn(1, SMALL.embed, 4, 4)
    mask = torch.zeros(1, 4, 4)
    mask[:, :2] = 1
    changed = value.clone()
    changed[:, :, 2:] += 1
    half = SMALL.queries // 2
    first, second = summarizer(value, mask), summarizer(changed, mask)
    assert torch.equal(first[:, :half], second[:, :half])
    assert not torch.equal(first[:, half:], second[:, half:])


def test_the_soft_masks_are_the_logarithms_of_the_probabilities() -> None:
    logits = torch.tensor([[[2.0, -30.0]]])
    bias = _bias(logits, queries=4)
    assert bias.shape == (1, 4, 2)
    torch.testing.assert_close(bias[0, 0].exp(), logits[0, 0].sigmoid())
    torch.testing.assert_close(bias[0, 3].exp(), 1 - logits[0, 0].sigmoid())


def test_there_is_a_map_before_and_after_each_block() -> None:
    transformer = QueryTransformer(SMALL)
    known = torch.zeros(2, SMALL.queries, SMALL.embed + 1)
    pixels, logits = transformer(torch.randn(2, SMALL.embed, 4, 6), known)
    assert pixels.shape == (2, SMALL.embed, 4, 6)
    assert [x.shape for x in logits] == [(2, 4, 6)] * (SMALL.blocks + 1)


def test_what_is_known_of_an_object_changes_its_pixels() -> None:
    transformer, fused = QueryTransformer(SMALL), torch.randn(1, SMALL.embed, 4, 4)
    nothing = torch.zeros(1, SMALL.queries, SMALL.embed + 1)
    known = torch.rand_like(nothing)
    assert not torch.equal(transformer(fused, nothing)[0], transformer(fused, known)[0])


def test_a_summary_and_a_decayed_one_say_the_same() -> None:
    transformer, fused = QueryTransformer(SMALL), torch.randn(1, SMALL.embed, 4, 4)
    known = torch.rand(1, SMALL.queries, SMALL.embed + 1) + 1
    torch.testing.assert_close(
        transformer(fused, known)[0], transformer(fused, 0.5 * known)[0], rtol=1e-2, atol=1e-2
    )
