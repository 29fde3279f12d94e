"""What choosing among trained models takes: the models, their folds, scores and commands."""

from __future__ import annotations

import csv
import io
import logging
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetlike.core import paths
from nnunetlike.core.errors import NnunetlikeError, UsageError
from nnunetlike.core.in_use import using
from nnunetlike.evaluation.summary import NOT_FOREGROUND, Summary, read_summary
from nnunetlike.inference.cross_validation import VALIDATION, without_probabilities
from nnunetlike.networks.model_files import find_checkpoint, load_model_file
from nnunetlike.postprocessing.consolidate import chosen_folds
from nnunetlike.run.fold import FoldRun, resolve
from nnunetlike.run.validate_fold import validate_fold
from nnunetlike.training.recipes import TRAINERS
from nnunetlike.training.runtime import SingleProcess, choose_device, choose_precision

logger = logging.getLogger(__name__)
Folds = tuple[int | str, ...]


@dataclass(frozen=True)
class Model:
    """A trained model of a task."""

    configuration: str
    task: str
    trainer: str
    plans: str
    first_stage: str = ""
    """Of a cascade: the trainer of its low resolution."""

    @property
    def folder(self) -> Path:
        """Folder that holds its folds."""
        return paths.model_folder(self.configuration, self.task, self.trainer, self.plans)

    @property
    def full_name(self) -> str:
        """Name within that of an ensemble, as in nnU-Net v1."""
        return f"{self.configuration}__{self.trainer}__{self.plans}"

    def validation_command(self, fold: int | str, *, trained: bool, npz: bool = False) -> str:
        """Return the command that validates a fold, training it first if it is not."""
        words = ["nnUNet_train", self.configuration, self.trainer, self.task, str(fold)]
        words += [] if self.plans == paths.DEFAULT_PLANS else ["-p", self.plans]
        words += ["-val"] if trained else []
        words += ["--npz", "--val_disable_overwrite"] if npz else []
        return shlex.join(words)


@dataclass(frozen=True)
class Candidate:
    """A model, or several together, with what the cross-validation says of them."""

    name: str
    models: tuple[Model, ...]
    raw: Summary
    postprocessed: Summary | None
    """After postprocessing; None if it was not looked for."""

    postprocessing: Path | None
    """The postprocessing.json, where one was determined."""

    @property
    def dice(self) -> dict[str, float]:
        """Mean Dice of each foreground label, over the cases that define it."""
        mean = self.raw.mean
        return {name: row["Dice"] for name, row in mean.items() if name not in NOT_FOREGROUND}

    @property
    def foreground(self) -> float:
        """Mean of these, over the labels that have one; NaN where none has."""
        return self.raw.foreground_mean.get("Dice", math.nan)

    @property
    def foreground_postprocessed(self) -> float:
        """The same after postprocessing; NaN if it was not looked for."""
        after = self.postprocessed
        return math.nan if after is None else after.foreground_mean.get("Dice", math.nan)


def candidate(
    name: str, models: Sequence[Model], home: Path, raw: str, final: str | None
) -> Candidate:
    """Return a candidate whose scores lie in `home/raw` and, postprocessed, in `home/final`.

    Raises:
        DataError: there are no scores.
    """
    return Candidate(
        name=name,
        models=tuple(models),
        raw=read_summary(home / raw / "summary.json"),
        postprocessed=None if final is None else read_summary(home / final / "summary.json"),
        postprocessing=None if final is None else home / "postprocessing.json",
    )


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates, the best mean Dice before postprocessing first, as v1 chooses.

    Among equals the one of fewer models comes first, and else the one named first; a candidate
    without any Dice is last.
    """

    def key(found: Candidate) -> tuple[float, int]:
        """Return what sorts the best first, of equals the one of fewest models."""
        value = found.foreground
        return (math.inf if math.isnan(value) else -value, len(found.models))

    return sorted(candidates, key=key)


def validated_folds(model: Model, asked: Folds | None) -> Folds:
    """Return the folds of a model that were validated: those asked for, or all.

    Raises:
        UsageError: the model or one of the folds is missing; the message has a command that helps.
    """
    try:
        return tuple(_fold_of(path.name) for path in chosen_folds(model.folder, asked))
    except UsageError as error:
        folds = (0,) if asked is None else asked
        missing = [fold for fold in folds if not _has_summary(model, fold)] or list(folds)
        commands = "; ".join(
            model.validation_command(fold, trained=is_trained(model, fold)) for fold in missing
        )
        raise UsageError(f"{model.configuration}: {error}. Run: {commands}") from None


def _has_summary(model: Model, fold: int | str) -> bool:
    return (model.folder / paths.fold_name(fold) / VALIDATION / "summary.json").is_file()


def is_trained(model: Model, fold: int | str) -> bool:
    """Tell whether a fold has weights."""
    return any((model.folder / paths.fold_name(fold)).glob("*.model"))


def _fold_of(name: str) -> int | str:
    return paths.parse_fold(name.removeprefix("fold_"))


def common_folds(folds: Mapping[Model, Folds]) -> Folds:
    """Return the folds that every model has validated.

    Raises:
        UsageError: there is none.
    """
    every = list(folds.values())
    common = tuple(fold for fold in every[0] if all(fold in found for found in every))
    if not common:
        shown = "; ".join(f"{m.configuration}: {_words(f)}" for m, f in folds.items())
        raise UsageError(
            f"no fold was validated by every model ({shown}). Validate the same folds of each, or "
            "compare fewer models with -m"
        )
    for model, found in folds.items():
        if set(found) != set(common):
            logger.info(
                "%s has the folds %s; compared are %s, which every model has",
                model.configuration, _words(found), _words(common),
            )  # fmt: skip
    return common


def _words(folds: Folds) -> str:
    return ", ".join(map(str, folds))


def keep_probabilities(model: Model, folds: Folds, device: str | None) -> None:
    """Make the probabilities of validation cases that were not kept; those that were stay.

    Raises:
        NnunetlikeError: that is not possible here; the message has the command that does it.
    """
    for fold in folds:
        missing = without_probabilities(model.folder / paths.fold_name(fold))
        if not missing:
            continue
        logger.info(
            "%s, fold %s: %d cases have no probabilities, which an ensemble needs; they are "
            "predicted again", model.configuration, fold, len(missing),
        )  # fmt: skip
        try:
            _validate_again(model, fold, device)
        except NnunetlikeError as error:
            command = model.validation_command(fold, trained=True, npz=True)
            raise type(error)(
                f"{model.configuration}, fold {fold}: the probabilities that an ensemble needs "
                f"cannot be made here: {error}. Make them where the preprocessed cases are: "
                f"{command}. Or rank the models alone with --disable_ensembling"
            ) from None


def _validate_again(model: Model, fold: int | str, device: str | None) -> None:
    """Validate a fold as after its training, in its precision, and keep the probabilities."""
    weights = load_model_file(find_checkpoint(model.folder / paths.fold_name(fold), None))
    init = weights.info["init"]
    fp32, recipe = not init[-1], TRAINERS.get(model.trainer)
    if recipe.previous_trainer is not None:
        recipe = replace(recipe, previous_trainer=str(init[-2]))
    run = FoldRun(
        recipe=recipe,
        configuration=model.configuration,
        task=model.task,
        fold=fold,
        plans_identifier=model.plans,
        seed=0,
        fp32=fp32,
        save_npz=True,
        overwrite_validation=False,
        postprocess=False,
    )
    where = choose_device(device)
    found = resolve(run)
    with using(found.dataset):
        validate_fold(
            found, weights.build(), SingleProcess(where, choose_precision(where, fp32=fp32))
        )


def prediction_commands(best: Candidate, folds: Folds, cascade_trainer: str) -> list[str]:
    """Return the commands that predict new cases with a candidate, to be run in this order.

    Args:
        best: the candidate.
        folds: that were compared; named where prediction would take others by itself.
        cascade_trainer: named for configurations that are no cascade, as nnU-Net v1 does.
    """
    together = len(best.models) > 1
    outputs = [f"OUTPUT_FOLDER_MODEL{n}" for n in range(1, len(best.models) + 1)]
    commands = []
    for model, output in zip(best.models, outputs if together else ["OUTPUT_FOLDER"], strict=True):
        trainers = (
            (model.first_stage, model.trainer)
            if model.first_stage
            else (
                model.trainer,
                cascade_trainer,
            )
        )
        words = ["nnUNet_predict", "-i", "FOLDER_WITH_TEST_CASES", "-o", output]
        words += ["-tr", trainers[0], "-ctr", trainers[1], "-m", model.configuration]
        words += ["-p", model.plans, "-t", model.task]
        if set(folds) != _folds_predicted_by_default(model):
            words += ["-f", *map(str, folds)]
        commands.append(shlex.join(words + ["--save_npz"] * together))
    if together:
        words = ["nnUNet_ensemble", "-f", *outputs, "-o", "OUTPUT_FOLDER"]
        words += [] if best.postprocessing is None else ["-pp", str(best.postprocessing)]
        commands.append(shlex.join(words))
    return commands


def _folds_predicted_by_default(model: Model) -> set[int | str]:
    names = {path.parent.name for path in model.folder.glob("fold_*/*.model")}
    return {_fold_of(name) for name in names if name.removeprefix("fold_").isdigit()}


def as_table(candidates: Sequence[Candidate], best: Candidate) -> str:
    """Return the scores as text, one line a candidate, the best one marked."""
    labels = list(best.dice)
    head = ["", "model", *(f"label {label}" for label in labels), "mean", "postprocessed"]
    rows = [
        [
            "*" if found is best else "",
            found.name,
            *(_number(found.dice.get(label, math.nan)) for label in labels),
            _number(found.foreground),
            _number(found.foreground_postprocessed),
        ]
        for found in candidates
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    )


def as_csv(candidates: Sequence[Candidate]) -> str:
    """Return the scores as nnU-Net v1's summary.csv, with a last column for postprocessing."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    labels = list(candidates[0].dice)
    writer.writerow(["model", *(f"class{label}" for label in labels), "average", "postprocessed"])
    for found in candidates:
        values = [*(found.dice.get(label, math.nan) for label in labels), found.foreground]
        values.append(found.foreground_postprocessed)
        writer.writerow([found.name, *(_number(value, "") for value in values)])
    return stream.getvalue()


def _number(value: float, absent: str = "n/a") -> str:
    return absent if math.isnan(value) else f"{value:.4f}"
