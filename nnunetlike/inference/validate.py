"""Validation after training: predict a fold's validation cases and measure them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from nnunetlike.core.errors import DataError, NnunetlikeError, WorkerError
from nnunetlike.core.heap import freed_memory_kept
from nnunetlike.core.intact import damage
from nnunetlike.core.parallel import (
    SHARE_OF_FREE,
    Budget,
    available_cores,
    default_processes,
    named,
    summed_up,
)
from nnunetlike.core.resources import free_memory
from nnunetlike.core.serialization import load_json, save_json
from nnunetlike.core.team import ALONE, Team
from nnunetlike.core.typing import LabelMap
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.imageio import ending_in
from nnunetlike.data.previous_stage import PreviousStage, one_hot
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.evaluator import evaluate_pairs
from nnunetlike.evaluation.summary import Summary
from nnunetlike.evaluation.video import VideoSummary, evaluate_videos
from nnunetlike.inference.background import Behind
from nnunetlike.inference.dealing import deal, prediction_cost
from nnunetlike.inference.export import (
    Destination,
    ExportSettings,
    LabelWithinBox,
    export_bytes,
    export_settled,
    keep,
)
from nnunetlike.inference.fallback import predict_slabs
from nnunetlike.inference.spill import Spilled
from nnunetlike.inference.strategies import STRATEGIES, Request
from nnunetlike.inference.streaming import settled
from nnunetlike.inference.validation_settings import ValidationSettings
from nnunetlike.plans.plans import Plans

logger = logging.getLogger(__name__)
PROGRESS = "in_progress.json"
"""Says what makes the predictions of a validation; there until it is complete."""

TO_PREDICT = "to_predict"
"""Key of the cases that were missing when the validation began."""


def validate(
    network: nn.Module,
    plans: Plans,
    stage: int,
    store: CaseStore,
    case_ids: Sequence[str],
    references: Path,
    output: Path,
    settings: ValidationSettings,
    *,
    task: str,
    name: str,
    team: Team = ALONE,
    previous: PreviousStage | None = None,
) -> dict[str, Any]:
    """Predict preprocessed cases, compare them with the references and return the summary.

    A validation that was interrupted goes on where it was, provided weights and settings are those
    it began with. A case whose worker died is predicted again, alone, after the others.

    The processes of a team call this alike and see the same folders. Cases are dealt out by what
    they cost; number 0 begins and compares. A next run may have more processes or fewer.

    Args:
        network: in any mode; it comes back in the mode it had.
        plans: plans of the data set.
        stage: number of the stage the network was trained on.
        store: preprocessed cases of that stage.
        case_ids: cases to validate.
        references: folder of `ID.nii.gz` on the source grids.
        output: gets `ID.nii.gz`, `summary.json`, `validation_args.json`, and where they are kept
            `ID.npz` and `ID.pkl`.
        settings: see there.
        task: name of the task for the summary.
        name: name of the evaluation for the summary, `TRAINER val tiled True`.
        team: processes that share the cases, each with a network of the same weights.
        previous: of a cascade, what the low resolution has found.

    Returns:
        The content of `summary.json`, in every process.

    Raises:
        DataError: a case or its reference is missing, or an export failed.
        WorkerError: a case's worker process died twice; the other cases are written.
        ResourceError: the disk is full, or a device's memory does not suffice.
        NnunetlikeError: another process of the team failed; its own error says why.
    """
    work = _Work(
        plans=plans, stage=stage, store=store, output=output, ending=ending_in(references),
        settings=settings, team=team, previous=previous,
    )  # fmt: skip
    if team.rank == 0:
        _begin(work, case_ids, weights_hash(network))
        settings.save(plans.stages[stage], output)
    work.meet("begun")
    _predict_together(network, work)
    if team.rank == 0:
        _compare(work, case_ids, references, task=task, name=name)
    work.meet("compared")
    content: dict[str, Any] = load_json(output / "summary.json")
    return content


def weights_hash(network: nn.Module) -> str:
    """Return a fingerprint (SHA-256) of the names and values of a network's weights."""
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Work:
    """How cases are predicted and where predictions go."""

    plans: Plans
    stage: int
    store: CaseStore
    output: Path
    ending: str
    """Of label files."""

    settings: ValidationSettings
    team: Team
    previous: PreviousStage | None

    @property
    def request(self) -> Request:
        """How an image is predicted."""
        return self.settings.request(self.plans.stages[self.stage])

    @property
    def processes(self) -> int:
        """How many workers are asked for."""
        asked = self.settings.processes
        return default_processes() if asked is None else asked

    def meet(self, place: str) -> None:
        """Wait until the others have come as far."""
        self.team.meet(f"validation in {self.output}: {place}")

    def destination(self, case_id: str) -> Destination:
        """Return where a prediction goes."""
        return Destination(path=self.files(case_id)[0], save_npz=self.settings.save_npz)

    def files(self, case_id: str) -> list[Path]:
        """Return the files of one prediction."""
        suffixes = (self.ending, ".npz", ".pkl") if self.settings.save_npz else (self.ending,)
        return [self.output / f"{case_id}{suffix}" for suffix in suffixes]


def _begin(work: _Work, case_ids: Sequence[str], weights: str) -> None:
    """Note which cases are to be predicted, and what predicts them, so that a next run knows."""
    work.output.mkdir(parents=True, exist_ok=True)
    overwrite, strategy = work.settings.overwrite, work.settings.strategy
    maker = {"weights": weights, "request": repr(work.request), "strategy": strategy}
    path = work.output / PROGRESS
    before = load_json(path) if damage(path) is None else {}
    goes_on = {key: before.get(key) for key in maker} == maker
    if overwrite and not goes_on:
        path.unlink(missing_ok=True)
        for file in (file for case in case_ids for file in work.files(case)):
            file.unlink(missing_ok=True)
    todo = [case for case in case_ids if any(damage(file) for file in work.files(case))]
    if len(todo) < len(case_ids):
        done = len(case_ids) - len(todo)
        logger.info("%d of %d validation cases are done already", done, len(case_ids))
    known = maker if overwrite or goes_on else {}  # else what is there is of unknown origin
    save_json({**known, TO_PREDICT: todo}, path)


def _predict_together(network: nn.Module, work: _Work) -> None:
    """Predict this process's part of the cases and wait for the others with theirs.

    Raises:
        NnunetlikeError: cases failed here, or in another process; all others are written.
    """
    todo: list[str] = load_json(work.output / PROGRESS)[TO_PREDICT]
    with prediction_mode(network), freed_memory_kept():
        errors = _predict_all(network, work, _own_part(work, todo))
    work.meet("predicted")  # a process that fails before it ends the others
    if errors:
        raise summed_up(errors, len(todo))
    work.meet("whole")


def _own_part(work: _Work, case_ids: list[str]) -> list[str]:
    """Return the cases that this process predicts."""
    team = work.team
    if team.world_size == 1:
        return case_ids
    costs = [
        prediction_cost(work.store.record(case), work.request, work.plans.num_classes)
        for case in case_ids
    ]
    hands = deal(costs, team.world_size)
    if team.rank == 0:
        numbers = ", ".join(str(len(hand)) for hand in hands)
        logger.info(
            "%d processes share %d validation cases: %s", team.world_size, len(case_ids), numbers
        )
    return [case_ids[index] for index in hands[team.rank]]


def _predict_all(
    network: nn.Module, work: _Work, case_ids: Sequence[str]
) -> dict[str, NnunetlikeError]:
    """Predict cases, those whose worker died once more, alone; return the errors that are left."""
    errors = _predict(network, work, case_ids)
    for case in [c for c in case_ids if isinstance(errors.get(c), WorkerError)]:
        first = str(errors.pop(case)).splitlines()[0]
        logger.warning("%s. It is predicted once more, alone", first)
        errors |= _predict(network, work, [case])
    return errors


def _predict(
    network: nn.Module, work: _Work, case_ids: Sequence[str]
) -> dict[str, NnunetlikeError]:
    """Predict and write; return the errors of cases that could not be written."""
    settings = ExportSettings.of(work.plans)
    errors: dict[str, NnunetlikeError] = {}
    with (
        ExitStack() as left,  # what a worker that died has not removed
        Behind(_export_budget(work, len(case_ids))) as behind,
        _bar(work, case_ids) as bar,
    ):
        for case in bar:
            try:
                label, kept, record = _settle_case(network, work, case)
            except NnunetlikeError as error:
                errors[case] = named(error, case)
                logger.warning("%s", errors[case])
                continue
            if kept is not None:
                left.callback(kept.remove)
            behind.submit(
                case, export_settled, label, kept, record, settings, work.destination(case),
                cost=export_bytes(record, settings, kept),
            )  # fmt: skip
            behind.raise_if_pointless()
    behind.raise_if_pointless()
    return errors | behind.errors


def _settle_case(
    network: nn.Module, work: _Work, case: str
) -> tuple[LabelMap, Spilled | None, CaseRecord]:
    """Return the labels of a case, its probabilities where they are to be saved, and its record."""
    record = work.store.record(case)
    image = np.array(work.store.load(case)[:-1], np.float32)
    if work.previous is not None:
        known = work.previous.load(case, image.shape[1:])
        image = np.concatenate([image, one_hot(known, work.plans.classes)])
    shape = (cast(int, network.classes), *image.shape[1:])
    target = LabelWithinBox(shape, record, ExportSettings.of(work.plans))
    kept = keep(work.destination(case), shape)
    slabs = predict_slabs(STRATEGIES.get(work.settings.strategy), network, image, work.request)
    return settled(slabs, target, kept, device=work.request.device.type), kept, record


def _export_budget(work: _Work, cases: int) -> Budget:
    """Return this process's share of workers and memory; the others may be on the same machine."""
    size, free = work.team.world_size, free_memory()
    processes = min(work.processes, cases, max(1, available_cores() // size))
    return Budget(processes, float("inf") if free is None else SHARE_OF_FREE * free / size)


def _bar(work: _Work, case_ids: Sequence[str]) -> tqdm[str]:
    """Return the cases with a progress bar, which only process 0 shows, of its own ones."""
    team = work.team
    title = "validating" if team.world_size == 1 else f"validating, process 0 of {team.world_size}"
    return tqdm(case_ids, desc=title, unit="case", disable=None if team.rank == 0 else True)


@contextmanager
def prediction_mode(network: nn.Module) -> Iterator[None]:
    """Have a network predict its finest output only; afterwards it is as it was."""
    modes = (network.training, bool(network.deep_supervision))
    network.eval()
    network.deep_supervision = False  # type: ignore[assignment]  # a bool by contract
    try:
        yield
    finally:
        network.train(modes[0])
        network.deep_supervision = modes[1]  # type: ignore[assignment]  # a bool by contract


def _compare(
    work: _Work, case_ids: Sequence[str], references: Path, *, task: str, name: str
) -> None:
    """Write `summary.json`; the validation is complete then."""
    pairs = [(work.files(case)[0], references / f"{case}{work.ending}") for case in case_ids]
    labels, video = list(range(work.plans.num_classes)), work.plans.stages[work.stage].video
    summary: Summary | VideoSummary
    if video is None:
        summary = evaluate_pairs(pairs, labels, processes=work.processes)
    else:
        known = DatasetSpec.load(references.parent / "dataset.json").labels
        summary = evaluate_videos(
            pairs, {case: _facts_of(work, case) for case in case_ids}, labels,
            ignore=work.plans.num_classes, names=known.names, unit=video.unit,
            supervision=video.supervision, processes=work.processes,
        )  # fmt: skip
    path = work.output / "summary.json"
    summary.write(path, name=name, description="", task=task, author="Fabian")
    (work.output / PROGRESS).unlink(missing_ok=True)


def _facts_of(work: _Work, case_id: str) -> VideoFacts:
    facts = work.store.record(case_id).video
    if facts is None:
        raise DataError(
            f"{case_id}: {work.store.folder} holds it as an image, not as a video. Preprocess the "
            "task again"
        )
    return facts
