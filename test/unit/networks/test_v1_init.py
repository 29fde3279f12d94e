from __future__ import annotations

from typing import Any

import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.networks.v1_init import init_for, stage_of

PLAIN = ("p.pkl", 0, "out", "data", True, 1, True, False, True)
DDP = ("p.pkl", 0, 0, "out", "data", True, 1, True, False, False, True)
DP = ("p.pkl", 0, "out", "data", True, 1, True, False, 1, False, True)
CASCADE = ("p.pkl", 0, "out", "data", True, 1, True, False, "nnUNetTrainerV2", True)
KINDS = {
    "nnUNetTrainerV2": PLAIN,
    "nnUNetTrainerV2_DDP": DDP,
    "nnUNetTrainerV2_DP": DP,
    "nnUNetTrainerV2CascadeFullRes": CASCADE,
}


@pytest.mark.parametrize("init", KINDS.values(), ids=KINDS)
def test_the_stage_is_found_whatever_the_trainer(init: tuple[Any, ...]) -> None:
    assert stage_of(init) == 1


@pytest.mark.parametrize("before", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("name", KINDS)
def test_the_arguments_of_any_trainer_become_those_of_any_other(
    name: str, before: tuple[Any, ...]
) -> None:
    assert init_for(name, before) == KINDS[name]


def test_how_a_batch_was_shared_survives_from_ddp_to_dp() -> None:
    shared = (*DDP[:9], True, True)
    assert init_for("nnUNetTrainerV2_DP", shared) == (*DP[:9], True, True)


def test_trainers_from_before_mixed_precision_have_eight() -> None:
    assert init_for("nnUNetTrainer", PLAIN[:8]) == PLAIN[:8]


def test_what_no_trainer_takes_is_refused() -> None:
    with pytest.raises(DataError, match="does not take 3 arguments"):
        init_for("nnUNetTrainerV2", ("a", 0, "b"))
