"""nnUNet_find_best_configuration: which model, or which two together, to predict with."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from nnunetlike.core import paths
from nnunetlike.core.errors import UsageError
from nnunetlike.core.parallel import default_processes
from nnunetlike.core.serialization import load_json, write_text
from nnunetlike.data.imageio import split_ending
from nnunetlike.evaluation.summary import add_foreground_mean
from nnunetlike.inference.cross_validation import (
    FINAL,
    RAW,
    ensemble_validations,
    require_same_cases,
)
from nnunetlike.postprocessing.consolidate import POOLED, POOLED_FINAL, consolidate, pool
from nnunetlike.postprocessing.determine import scored_labels
from nnunetlike.run.command_line import CommandParser, process_count, run_command
from nnunetlike.run.determine_postprocessing import add_min_size_option, references_of, verdict
from nnunetlike.run.model_choice import (
    Candidate,
    Folds,
    Model,
    as_csv,
    as_table,
    candidate,
    common_folds,
    keep_probabilities,
    prediction_commands,
    ranked,
    validated_folds,
)
from nnunetlike.training.recipes import TRAINERS

CONFIGURATIONS = tuple(name for name in paths.CONFIGURATIONS if name != paths.VIDEO)
COMMANDS, TABLE = "prediction_commands.txt", "summary.csv"
logger = logging.getLogger(__name__)


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_find_best_configuration",
        description="Compares trained configurations of a task, alone and in pairs, by the mean "
        "Dice of their cross-validations, finds the postprocessing of each, and prints the "
        "commands that predict with the best. Pairs need the validations' probabilities; those "
        "that were not kept (nnUNet_train --npz) are made now.",
        examples=(
            "nnUNet_find_best_configuration -t 4 -m 2d 3d_fullres",
            "nnUNet_find_best_configuration -t 4 -m 3d_fullres -tr nnUNetTrainerV2 "
            "nnUNetPlusPlusTrainerV2",
        ),
    )
    add = parser.add_argument
    add("-m", "--models", nargs="+", default=list(CONFIGURATIONS), choices=CONFIGURATIONS,
        metavar="CONFIGURATION",
        help="configurations to compare; those that were not trained are left out")  # fmt: skip
    add("-t", "--task_ids", nargs="+", required=True, metavar="TASK", help="tasks, by name or "
        "number")  # fmt: skip
    add("-tr", "--trainer_class_name", nargs="+", default=[paths.DEFAULT_TRAINER],
        metavar="TRAINER", help="trainer, or several to compare")  # fmt: skip
    add("-ctr", "--cascade_trainer_class_name", nargs="+", metavar="TRAINER",
        default=[paths.DEFAULT_CASCADE_TRAINER], help="the same of 3d_cascade_fullres",
    )  # fmt: skip
    add("-pl", "--plans", default=paths.DEFAULT_PLANS, help="plans identifier")
    add("-f", "--folds", nargs="+", metavar="FOLD", help="folds to compare, numbers or 'all'; "
        "every one that all configurations have validated if omitted")  # fmt: skip
    add("--disable_ensembling", action="store_true", help="compare single configurations only")
    add("--disable_postprocessing", action="store_true", help="look for no postprocessing")
    add("--strict", action="store_true", help="a configuration that lacks a fold is an error")
    add_min_size_option(parser)
    add("--device", help="where missing probabilities are made: cpu, cuda, ...; a GPU if there is "
        "one")  # fmt: skip
    add("-num_processes", type=process_count, default=default_processes(),
        help="worker processes, 0: none")  # fmt: skip
    return parser


def find_best(args: argparse.Namespace) -> None:
    """Compare and print, task by task.

    Raises:
        UsageError: there is nothing to compare.
    """
    for text in args.task_ids:
        _of_task(args, paths.task_name(text))


def _of_task(args: argparse.Namespace, task: str) -> None:
    models, folds = _models(args, task)
    found = [_single(args, model, folds) for model in models]
    require_same_cases({c.name: _ids(c) for c in found})
    if not args.disable_ensembling:
        if len(models) > 1:
            for model in models:
                keep_probabilities(model, folds, args.device)
        found += [_pair(args, pair, folds) for pair in combinations(models, 2)]
    order = ranked(found)
    names = ", ".join(paths.fold_name(fold) for fold in folds)
    print(f"{task}: mean Dice of {len(found[0].raw.cases)} cases of {names}")
    print(as_table(order, order[0]))
    _conclude(args, task, found, order[0], folds)


def _conclude(
    args: argparse.Namespace, task: str, found: list[Candidate], best: Candidate, folds: Folds
) -> None:
    """Write and print the commands that predict with the best candidate."""
    commands = prediction_commands(best, folds, args.cascade_trainer_class_name[0])
    home = _ensembles(task)
    home.mkdir(parents=True, exist_ok=True)
    write_text(home / COMMANDS, "".join(f"{command}\n" for command in commands))
    write_text(home / TABLE, as_csv(found))
    print(f"best: {best.name}")
    if best.postprocessing is not None:
        print(f"its postprocessing: {verdict(load_json(best.postprocessing))}")
    elif len(best.models) == 1 and (best.models[0].folder / "postprocessing.json").is_file():
        rules = best.models[0].folder / "postprocessing.json"
        print(f"note: prediction applies {rules}; delete it to have none")
    print("Predict new cases with these commands, in this order, with folders of your own:\n")
    print("\n".join(commands))
    print(f"\nThe commands are in {home / COMMANDS}, the table in {home / TABLE}")


def _models(args: argparse.Namespace, task: str) -> tuple[list[Model], Folds]:
    """Return the models to compare and the folds that all of them have validated."""
    asked = None if args.folds is None else tuple(map(paths.parse_fold, args.folds))
    usable: dict[Model, Folds] = {}
    faults: list[str] = []
    untrained: list[str] = []
    for model in _asked_for(args, task):
        try:
            usable[model] = validated_folds(model, asked)
        except UsageError as error:
            faults.append(str(error))
            if model.folder.is_dir():
                logger.info("left out: %s", error)
            else:
                untrained.append(_name(args, model))
    if faults and (args.strict or not usable):
        raise UsageError(f"{task}: " + " | ".join(faults))
    if untrained:
        logger.info("left out, since they were not trained: %s", ", ".join(untrained))
    return list(usable), common_folds(usable)


def _asked_for(args: argparse.Namespace, task: str) -> list[Model]:
    """Return every configuration with every trainer that is to be compared."""
    models = []
    firsts: list[str] = args.trainer_class_name
    for configuration in args.models:
        if configuration != paths.CASCADE:
            models += [Model(configuration, task, trainer, args.plans) for trainer in firsts]
            continue
        for trainer in args.cascade_trainer_class_name:
            before = TRAINERS.get(trainer).previous_trainer if len(firsts) > 1 else None
            models.append(Model(configuration, task, trainer, args.plans, before or firsts[0]))
    return list(dict.fromkeys(models))


def _name(args: argparse.Namespace, model: Model) -> str:
    """Return what a model is called in the table: v1's name, or with its trainer if it needs be."""
    cascade = model.configuration == paths.CASCADE
    trainers = args.cascade_trainer_class_name if cascade else args.trainer_class_name
    return model.configuration if len(trainers) == 1 else model.full_name


def _single(args: argparse.Namespace, model: Model, folds: Folds) -> Candidate:
    """Return a model alone, after pooling its folds."""
    references = references_of(model.folder, model.task)
    if args.disable_postprocessing:
        pool(model.folder, references, folds=folds, processes=args.num_processes)
    else:
        consolidate(
            model.folder, references, folds=folds, min_size=args.min_size,
            processes=args.num_processes,
        )  # fmt: skip
    add_foreground_mean(model.folder / POOLED / "summary.json")
    final = None if args.disable_postprocessing else POOLED_FINAL
    return candidate(_name(args, model), [model], model.folder, POOLED, final)


def _pair(args: argparse.Namespace, models: tuple[Model, Model], folds: Folds) -> Candidate:
    """Return two models together."""
    name = "ensemble_" + "--".join(model.full_name for model in models)
    first = models[0]
    home = _ensembles(first.task) / name
    ensemble_validations(
        [model.folder for model in models],
        folds,
        references_of(first.folder, first.task),
        home,
        labels=scored_labels(first.folder / POOLED / "summary.json"),
        postprocess=not args.disable_postprocessing,
        min_size=args.min_size,
        processes=args.num_processes,
    )
    add_foreground_mean(home / RAW / "summary.json")
    return candidate(name, models, home, RAW, None if args.disable_postprocessing else FINAL)


def _ids(found: Candidate) -> set[str]:
    return {split_ending(Path(case.prediction).name)[0] for case in found.raw.cases}


def _ensembles(task: str) -> Path:
    return paths.results() / "ensembles" / task


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(find_best, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
