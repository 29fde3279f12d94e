"""Options of nnUNet_train and what they come to."""

from __future__ import annotations

import math

import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.run.run_training import build_parser, fold_run_from
from nnunetlike.run.validate_fold import dice_table
from nnunetlike.training.recipes import TRAINERS

WORDS = ["3d_fullres", "nnUNetTrainerV2", "Task004_Hippocampus", "0"]


def _run(*options: str):  # type: ignore[no-untyped-def]
    return fold_run_from(build_parser().parse_args([*WORDS, *options]))


def test_without_options_the_recipe_is_the_registered_one() -> None:
    run = _run()
    assert run.recipe == TRAINERS.get("nnUNetTrainerV2")
    assert (run.plans_identifier, run.val_folder) == ("nnUNetPlansv2.1", "validation_raw")
    assert run.keep_checkpoints
    assert run.postprocess
    assert run.overwrite_validation


def test_options_replace_parts_of_the_recipe() -> None:
    run = _run("--epochs=3", "--iterations", "4", "--val-iterations=5", "--batch_size=6")
    recipe = run.recipe
    assert (recipe.epochs, recipe.iterations, recipe.val_iterations) == (3, 4, 5)
    assert recipe.batch_size == 6
    assert recipe.optimizer == TRAINERS.get("nnUNetTrainerV2").optimizer


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("--use_compressed_data", "use_compressed_data", True),
        ("--npz", "save_npz", True),
        ("--fp32", "fp32", True),
        ("--disable_saving", "keep_checkpoints", False),
        ("--disable_postprocessing_on_folds", "postprocess", False),
        ("--disable_validation_inference", "infer_validation", False),
        ("--val_disable_overwrite", "overwrite_validation", False),
        ("--continue_training", "continue_training", True),
        ("-c", "continue_training", True),
        ("--seed=5", "seed", 5),
        ("--num_workers=3", "workers", 3),
        ("--val_folder=other", "val_folder", "other"),
        ("-p=Mine", "plans_identifier", "Mine"),
    ],
)
def test_every_option_arrives(option: str, field: str, value: object) -> None:
    assert getattr(_run(option), field) == value


def test_deterministic_runs_share_a_seed_and_others_do_not() -> None:
    assert _run("--deterministic").seed == 12345
    assert _run().seed != _run().seed


def test_workers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "5")
    assert _run().workers == 5
    monkeypatch.setenv("nnUNet_n_proc_DA", "five")
    with pytest.raises(UsageError, match="nnUNet_n_proc_DA"):
        _run()


def test_workers_are_no_more_than_cores_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_n_proc_DA", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2, 5}, raising=False)
    assert _run().workers <= 4


@pytest.mark.parametrize(
    "options",
    [("--seed=-1",), ("--num_workers=-1",), ("--valbest",),
     ("-chk=best",), ("-val", "--valbest", "-chk=best")],
)  # fmt: skip
def test_contradictions_are_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        _run(*options)


def test_a_frozen_part_needs_weights_to_keep() -> None:
    with pytest.raises(UsageError, match="-pretrained_weights"):
        _run("--freeze", "encoder")
    for words in (["-c"], ["-val"], ["-pretrained_weights", "x.model"]):
        assert _run("--freeze", "encoder", *words).freeze == "encoder"


def test_going_on_and_pretrained_weights_exclude_each_other() -> None:
    with pytest.raises(UsageError, match="-pretrained_weights"):
        _run("-c", "-pretrained_weights", "x.model")


def test_table_has_a_line_per_class_and_the_mean_of_those_found() -> None:
    rows = {"0": 0.99, "1": 0.9, "2": math.nan, "3": 0.5, "mean": 0.7}
    summary = {"results": {"mean": {label: {"Dice": dice} for label, dice in rows.items()}}}
    assert dice_table(summary).splitlines() == [
        "  class   1  Dice 0.9000",
        "  class   2  Dice n/a (in no label and no prediction)",
        "  class   3  Dice 0.5000",
        "  mean       Dice 0.7000",
    ]


def test_early_stopping_has_a_default_number_of_epochs_and_a_least_one() -> None:
    assert _run().early_stopping is None
    assert _run("--early_stopping").early_stopping == 100
    assert _run("--early-stopping=7").early_stopping == 7
    with pytest.raises(UsageError, match="1 epoch or more"):
        _run("--early_stopping=0")


def test_a_rate_to_begin_with_replaces_that_of_the_recipe() -> None:
    assert _run("--lr=0.001").recipe.optimizer.rate(0, 10) == pytest.approx(0.001)
    with pytest.raises(UsageError, match="above 0"):
        _run("--lr=0")


def test_a_seed_that_is_asked_for_is_told_from_one_that_is_drawn() -> None:
    assert _run("--seed=3").seed_is_asked
    assert not _run().seed_is_asked
    assert not _run("--deterministic").seed_is_asked
