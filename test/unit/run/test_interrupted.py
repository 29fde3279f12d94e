"""The command that goes on after an interruption."""

from __future__ import annotations

import pytest

from nnunetlike.core.errors import InterruptedRunError
from nnunetlike.run.interrupted import command_that_goes_on, interruption_explained

WORDS = ["2d", "nnUNetTrainerV2", "4", "0"]


@pytest.mark.parametrize(
    ("options", "mode", "command"),
    [
        (["--epochs", "9"], "-c", "--epochs 9 -c"),
        (["--continue-training"], "-c", "-c"),
        (["-c", "--npz"], "-val", "--npz -val"),
        (["-pretrained_weights", "a b.model", "--fp32"], "-c", "--fp32 -c"),
        (["--pretrained-weights=a.model"], "-c", "-c"),
        (["-p", "My Plans"], "-c", "-p 'My Plans' -c"),
        (["-val"], None, "-val"),
    ],
)
def test_the_command_can_be_pasted(options: list[str], mode: str | None, command: str) -> None:
    found = command_that_goes_on([*WORDS, *options], mode)
    assert found == f"nnUNet_train 2d nnUNetTrainerV2 4 0 {command}"


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (InterruptedRunError("SIGTERM in epoch 3"), "it broke by SIGTERM in epoch 3. Go on with: "
         "True"),
        (KeyboardInterrupt(), "it broke. Go on with: False"),
    ],
)  # fmt: skip
def test_an_interruption_ends_with_the_command(raised: BaseException, message: str) -> None:
    with (
        pytest.raises(InterruptedRunError) as found,
        interruption_explained("it broke", str),
    ):
        raise raised
    assert str(found.value) == message
    assert found.value.exit_code == 5
