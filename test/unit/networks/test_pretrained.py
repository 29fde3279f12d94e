"""v1's rule for pretrained weights: conv_blocks must fit, then all that fits is copied."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from nnunetlike.core.errors import DataError
from nnunetlike.networks.pretrained import copy_pretrained
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.v1_weights import state_dict_to_v1


def test_all_fitting_tensors_are_copied_heads_included() -> None:
    spec, task = UNetSpec.tiny()
    source, target = spec.build(task), spec.build(task)
    copied = copy_pretrained(target, state_dict_to_v1(source))
    assert copied == list(state_dict_to_v1(source))
    for a, b in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(a, b)


def test_heads_of_another_number_of_classes_stay_as_they_are() -> None:
    spec, task = UNetSpec.tiny()
    source, target = spec.build(task), spec.build(replace(task, classes=task.classes + 1))
    before = {n: v.clone() for n, v in state_dict_to_v1(target).items() if "seg_outputs" in n}
    copied = copy_pretrained(target, state_dict_to_v1(source))
    assert not any("seg_outputs" in name for name in copied)
    after = state_dict_to_v1(target)
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_an_encoder_that_does_not_fit_is_refused_and_nothing_changes() -> None:
    spec, task = UNetSpec.tiny()
    source, target = spec.build(replace(task, base_features=6)), spec.build(task)
    before = [p.clone() for p in target.parameters()]
    with pytest.raises(DataError, match=r"conv_blocks.* has the shape"):
        copy_pretrained(target, state_dict_to_v1(source))
    assert all(torch.equal(a, b) for a, b in zip(before, target.parameters(), strict=True))


def test_a_missing_encoder_tensor_is_named() -> None:
    spec, task = UNetSpec.tiny()
    weights = dict(state_dict_to_v1(spec.build(task)))
    del weights["conv_blocks_context.0.blocks.0.conv.weight"]
    with pytest.raises(DataError, match=r"conv_blocks_context\.0\.blocks\.0\.conv\.weight is miss"):
        copy_pretrained(spec.build(task), weights)
