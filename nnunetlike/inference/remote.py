"""Whole cases predicted by processes elsewhere, each of which loads the model once and keeps it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from nnunetlike.core.errors import NnunetlikeError
from nnunetlike.core.parallel import Executor, named, outcomes_of
from nnunetlike.inference.case_prediction import predict_one
from nnunetlike.inference.cases import InputCase
from nnunetlike.inference.export import Destination
from nnunetlike.inference.model_bundle import FINAL, ModelBundle, load_bundle
from nnunetlike.inference.settings import PredictionSettings

_one_at_a_time = threading.Lock()
"""Held while a case is predicted: threads of a worker share the network, whose weights change from
fold to fold."""


@dataclass(frozen=True)
class ModelSource:
    """What a process elsewhere needs to load a model."""

    folder: Path
    folds: tuple[int | str, ...] | None
    checkpoint: str = FINAL
    stamps: tuple[tuple[int, int], ...] = ()
    """Size and time of the checkpoints, so that a worker notices when a model was trained anew."""

    def load(self) -> ModelBundle:
        """Return the model."""
        return load_bundle(self.folder, self.folds, self.checkpoint)

    @classmethod
    def of(
        cls, bundle: ModelBundle, folds: Sequence[int | str] | None, checkpoint: str
    ) -> ModelSource:
        """Return the source of a bundle that was loaded here."""
        files = [path.stat() for path in bundle.checkpoints]
        return cls(
            folder=bundle.folder.resolve(),
            folds=None if folds is None else tuple(folds),
            checkpoint=checkpoint,
            stamps=tuple((file.st_size, file.st_mtime_ns) for file in files),
        )


@dataclass(frozen=True)
class PredictElsewhere:
    """Sends cases to an executor, whole: reading, network and writing are done there."""

    executor: Executor
    model: ModelSource
    settings: Callable[[], PredictionSettings]
    """Picklable; called where the case is predicted, since that process has a device of its own."""

    def __call__(
        self, cases: Sequence[InputCase], destinations: Mapping[str, Destination]
    ) -> dict[str, NnunetlikeError]:
        """Return the errors of cases that failed."""
        work = [(case, destinations[case.case_id]) for case in cases]
        outcomes = outcomes_of(
            _OneCase(self.model, self.settings), work, processes=self.executor, name=_case_id,
            title="predicting",
        )  # fmt: skip
        return {
            case.case_id: named(outcome, case.case_id)
            for case, outcome in zip(cases, outcomes, strict=True)
            if isinstance(outcome, NnunetlikeError)
        }


@dataclass(frozen=True)
class _OneCase:
    model: ModelSource
    settings: Callable[[], PredictionSettings]

    def __call__(self, work: tuple[InputCase, Destination]) -> None:
        with _one_at_a_time:
            predict_one(_loaded(self.model), *work, self.settings())


@lru_cache(maxsize=1)
def _loaded(model: ModelSource) -> ModelBundle:
    return model.load()


def _case_id(work: tuple[InputCase, Destination]) -> str:
    return work[0].case_id
