"""Losses against nnU-Net v1's, in float64."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from nnunetlike.training.losses.compound import (
    Compound,
    dice_and_cross_entropy,
    dice_and_top_k,
    generalized_dice_and_cross_entropy,
)
from nnunetlike.training.losses.cross_entropy import (
    BinaryCrossEntropy,
    CrossEntropy,
    TopKCrossEntropy,
)
from nnunetlike.training.losses.dice import (
    GeneralizedDice,
    Matthews,
    SoftDice,
    SquaredDice,
    members_of,
    overlap,
)
from nnunetlike.training.objectives.segmentation import head_weights

CASES = ["a3d", "b2d", "c3d"]
SETTINGS = re.compile(r"DC_and_CE ds batch_dice=(\w+) smooth=(\S+) do_bg=(\w+)")


class Golden(NamedTuple):
    facts: dict[str, Any]
    logits: list[Tensor]
    labels: list[Tensor]
    gradients: dict[str, Tensor]


@pytest.fixture(scope="module")
def cases(golden: Path) -> dict[str, Golden]:
    arrays = np.load(golden / "training" / "losses.npz")
    made = {}
    for facts in json.loads((golden / "training" / "losses.json").read_text()):
        name, heads = facts["case"], range(len(facts["ds_weights"]))
        made[name] = Golden(
            facts,
            [torch.from_numpy(arrays[f"{name}_x{i}"]) for i in heads],
            [torch.from_numpy(arrays[f"{name}_y{i}"])[:, 0].to(torch.int16) for i in heads],
            {
                kind: torch.from_numpy(arrays[f"{name}_grad0_{kind}"]) for kind in ("bd0", "bd1")
            },
        )  # fmt: skip
    return made


def on_regions(logits: Tensor, label: Tensor) -> Tensor:
    dice = SoftDice(batch=True, background=True, smooth=0, regions=True)
    loss = Compound(((1.0, BinaryCrossEntropy()), (1.0, dice)))
    return loss(logits, members_of(label, logits.shape[1]))


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "CE": CrossEntropy(),
    "SoftDice batch": SoftDice(batch=True),
    "SoftDice sample": SoftDice(),
    "SoftDiceSquared batch": SquaredDice(batch=True),
    "GDL": GeneralizedDice(batch=True),
    "GDL_and_CE": generalized_dice_and_cross_entropy(batch_dice=True),
    "MCC batch": Matthews(batch=True, background=False),
    "DC_and_CE log_dice": dice_and_cross_entropy(batch_dice=True, log_dice=True),
    "DC_and_CE ce2 dice0.5": dice_and_cross_entropy(
        batch_dice=True, cross_entropy_weight=2, dice_weight=0.5
    ),
    "DC_and_CE ignore_label=1 sample": dice_and_cross_entropy(batch_dice=False, ignore_label=1),
    "DC_and_topk k=10": dice_and_top_k(batch_dice=True, percent=10),
    "TopK10": TopKCrossEntropy(percent=10),
    "DC_and_BCE onehot": on_regions,
}


@pytest.mark.parametrize("case", CASES)
def test_every_golden_loss_is_compared(cases: dict[str, Golden], case: str) -> None:
    assert set(cases[case].facts["head0"]) == set(LOSSES)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("case", CASES)
def test_a_loss_has_v1s_value(cases: dict[str, Golden], case: str, loss: str) -> None:
    given = cases[case]
    expected = float(given.facts["head0"][loss])
    value = float(LOSSES[loss](given.logits[0], given.labels[0]))
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-12, nan_ok=True)
    assert math.isnan(value) == math.isnan(expected)


@pytest.mark.parametrize("case", CASES)
def test_deep_supervision_has_v1s_value_and_gradient(cases: dict[str, Golden], case: str) -> None:
    facts, logits, labels, _ = cases[case]
    weights = head_weights(len(logits), "v1")
    assert weights == pytest.approx(facts["ds_weights"], abs=1e-15)
    compared = 0
    for title, known in facts.items():
        if (found := SETTINGS.fullmatch(title)) is None:
            continue
        loss = dice_and_cross_entropy(
            batch_dice=found[1] == "True", smooth=float(found[2]), background=found[3] == "True"
        )
        heads = [x.clone().requires_grad_() for x in logits]
        per_head = [loss(x, y) for x, y in zip(heads, labels, strict=True)]
        total = torch.stack([w * v for w, v in zip(weights, per_head, strict=True)]).sum()
        total.backward()
        assert float(total.detach()) == pytest.approx(known["loss"], rel=1e-9)
        assert [float(v.detach()) for v in per_head] == pytest.approx(known["per_head"], rel=1e-9)
        sizes = [float(x.grad.abs().sum()) for x in heads if x.grad is not None]
        assert sizes == pytest.approx(known["grad_l1"], rel=1e-9, abs=1e-12)
        compared += 1
    assert compared == 8


@pytest.mark.parametrize("kind", ["bd0", "bd1"])
@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_the_first_head_is_v1s(
    cases: dict[str, Golden], case: str, kind: str
) -> None:
    facts, logits, labels, gradients = cases[case]
    head = logits[0].clone().requires_grad_()
    loss = dice_and_cross_entropy(batch_dice=kind == "bd1")
    (facts["ds_weights"][0] * loss(head, labels[0])).backward()
    torch.testing.assert_close(head.grad, gradients[kind], rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("case", CASES)
def test_overlaps_are_v1s(cases: dict[str, Golden], case: str) -> None:
    facts, logits, labels, _ = cases[case]
    found = overlap(logits[0].softmax(1), members_of(labels[0], logits[0].shape[1]))
    ours = (found.shared, found.false_positives, found.false_negatives, found.true_negatives)
    for part, expected in zip(ours, facts["tp_fp_fn_tn_batch"], strict=True):
        assert part.sum(0).tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)
