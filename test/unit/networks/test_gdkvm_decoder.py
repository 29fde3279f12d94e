"""From maps of objects to logits of classes."""

from __future__ import annotations

import pytest
import torch

from nnunetlike.networks.gdkvm_decoder import aggregate


@pytest.mark.parametrize("objects", [1, 3])
def test_the_background_is_what_no_object_claims(objects: int) -> None:
    logits = 3 * torch.randn(2, objects, 4, 5, dtype=torch.float64)
    own = logits.sigmoid()
    p = torch.cat([(1 - own).prod(1, keepdim=True), own], 1).clamp(1e-7, 1 - 1e-7)
    torch.testing.assert_close(aggregate(logits), (p / (1 - p)).log(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [0.0, 1e3, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_of_any_size_stay_finite_and_so_do_gradients(
    size: float, dtype: torch.dtype
) -> None:
    logits = torch.tensor([[[[size]], [[-size]], [[-size]]]], dtype=dtype, requires_grad=True)
    out = aggregate(logits)
    out.sum().backward()
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_with_one_object_both_logits_say_the_same() -> None:
    logits = torch.randn(1, 1, 3, 3)
    both = aggregate(logits)
    torch.testing.assert_close(both[:, 0], -both[:, 1])
