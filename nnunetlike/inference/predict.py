"""A folder of images to a folder of label maps, with reading and writing in the background."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from nnunetlike.core.disk import require_space
from nnunetlike.core.errors import NnunetlikeError, UsageError, WorkerError
from nnunetlike.core.intact import damage
from nnunetlike.core.parallel import summed_up
from nnunetlike.core.resources import disk_space, in_words
from nnunetlike.core.serialization import atomic_path, save_json
from nnunetlike.inference.case_prediction import predict_cases
from nnunetlike.inference.cases import (
    InputCase,
    after_low_resolution,
    find_cases,
    tell_orientations,
)
from nnunetlike.inference.export import Destination, companion
from nnunetlike.inference.model_bundle import ModelBundle
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.inference.videos import (
    PredictedVideo,
    as_videos,
    require_video,
    write_video_outputs,
)
from nnunetlike.plans.plans import Plans
from nnunetlike.postprocessing.determine import load_postprocessing

logger = logging.getLogger(__name__)
SMALLEST_SHARE = 0.1
"""Compressed over plain bytes of probabilities that are nearly all 0 or 1."""

DESCRIPTIONS = {"v1": ("plans.pkl",), "v2": ("plans.json", "dataset.json")}
"""Files of a model that are put beside its predictions, as the nnU-Net it is of does."""


def predict_folder(
    bundle: ModelBundle,
    images: Path,
    output: Path,
    settings: PredictionSettings,
    predictor: Predictor | None = None,
    *,
    previous: Path | None = None,
) -> list[Path]:
    """Predict the cases of a folder and return the label files written.

    Cases are read and preprocessed ahead and written behind in worker processes, as many as asked
    for, as there are processors and as memory allows. A case that is finished and whole is left as
    it is. One whose worker died is predicted again, alone, after the others.

    Args:
        bundle: the trained model; the folds' probabilities are averaged.
        images: `ID_0000.nii.gz` ..., see `cases.find_cases`.
        output: gets `ID.nii.gz`, the plans, `prediction_time.txt` and, where the model has one,
            `postprocessing.json`, which is applied; of videos also overlays and `clinical.csv`,
            over all videos predicted by now.
        settings: see there.
        predictor: predicts the cases and writes their files; by default this process does.
        previous: of the second stage of a cascade, folder of `ID.nii.gz` by the low resolution.

    Raises:
        UsageError: both folders are one, what is asked for is for videos only, or `previous` is
            given to a model that is no second stage, or not to one that is.
        DataError: inputs are missing, or some cases failed; the others are written then.
        WorkerError: a case's worker process died twice; the others are written.
        ResourceError: the disk is full or has no room for probabilities, or a device's memory does
            not suffice for a case.
    """
    begin = time.time()
    _require_sense(bundle, images, output, settings, previous)
    every = _cases_of(bundle, images, previous)
    cases = every[settings.part :: settings.parts]
    output.mkdir(parents=True, exist_ok=True)
    destinations = _destinations(bundle, every, output, settings)
    todo = [case for case in cases if settings.overwrite or not _done(destinations[case.case_id])]
    if len(todo) < len(cases):
        logger.info("%d of %d cases are done already", len(cases) - len(todo), len(cases))
    tell_orientations(todo, bundle.plans.orientation)
    if settings.save_npz:
        require_room_for_probabilities(bundle.plans, len(todo), output)
    errors = (predictor or PredictHere(bundle, settings))(todo, destinations)
    _write_beside(bundle, every, destinations, output, settings)
    save_json(time.time() - begin, output / "prediction_time.txt")
    if errors:
        raise summed_up(errors, len(todo))
    return [destinations[case.case_id].path for case in todo]


def _require_sense(
    bundle: ModelBundle,
    images: Path,
    output: Path,
    settings: PredictionSettings,
    previous: Path | None,
) -> None:
    if output.resolve() == images.resolve():
        raise UsageError(
            f"{output} holds the images; give predictions a folder of their own with -o"
        )
    require_video(bundle, settings)
    if bundle.is_second_stage != (previous is not None):
        raise UsageError(
            f"{bundle.folder} predicts from what a low resolution has found; predict with -m "
            "3d_cascade_fullres"
            if bundle.is_second_stage
            else f"{bundle.folder} is not the second stage of a cascade; leave out -l"
        )


def _cases_of(bundle: ModelBundle, images: Path, previous: Path | None) -> list[InputCase]:
    every = find_cases(images, bundle.plans.modalities)
    if previous is not None:
        every = after_low_resolution(every, previous)
    if bundle.video is not None:
        every = as_videos(every, images, bundle.video.unit)
    return every


def _write_beside(
    bundle: ModelBundle,
    cases: Sequence[InputCase],
    destinations: Mapping[str, Destination],
    output: Path,
    settings: PredictionSettings,
) -> None:
    """Put the model's descriptions, and of videos what is told about all, beside predictions."""
    for name in DESCRIPTIONS[bundle.plans.conventions]:
        _copy(bundle.folder / name, output)
    if bundle.video is not None:
        there = [PredictedVideo(case, destinations[case.case_id].path) for case in cases]
        write_video_outputs([v for v in there if v.label.is_file()], output, settings)


class Predictor(Protocol):
    """Predicts cases and writes them, wherever that is done."""

    def __call__(
        self, cases: Sequence[InputCase], destinations: Mapping[str, Destination]
    ) -> dict[str, NnunetlikeError]:
        """Return the errors of cases that failed, by identifier; the others are written.

        Raises:
            ResourceError: the disk is full, or the like.
        """
        ...


@dataclass(frozen=True)
class PredictHere:
    """Predicts with a network in this process; cases whose worker died once more, alone."""

    bundle: ModelBundle
    settings: PredictionSettings

    def __call__(
        self, cases: Sequence[InputCase], destinations: Mapping[str, Destination]
    ) -> dict[str, NnunetlikeError]:
        """Return the errors of cases that failed."""
        errors = predict_cases(self.bundle, cases, destinations, self.settings)
        for case in [c for c in cases if isinstance(errors.get(c.case_id), WorkerError)]:
            error = errors.pop(case.case_id)
            logger.warning("%s. It is predicted once more, alone", str(error).splitlines()[0])
            errors |= predict_cases(self.bundle, [case], destinations, self.settings)
        return errors


def require_room_for_probabilities(
    plans: Plans, cases: int, output: Path, remedy: str = "predict without --save_npz (-z)"
) -> None:
    """Say what the probabilities of so many cases take at most on disk.

    The sizes of the training cases stand for those of the cases to predict.

    Args:
        plans: of the model.
        cases: how many will be predicted.
        output: folder that gets them.
        remedy: what to do where the disk is too small.

    Raises:
        ResourceError: the disk has no room for them even if they compress well.
    """
    voxels = float(np.mean([math.prod(size) for size in plans.fingerprint.sizes]))
    most = cases * voxels * plans.num_classes * np.dtype(np.float16).itemsize
    free = disk_space(output).free
    logger.info(
        "probabilities of %d cases take at most about %s, often a tenth of it; %s are free",
        cases,
        in_words(most),
        in_words(free),
    )
    require_space(
        output,
        SMALLEST_SHARE * most,
        f"writing the probabilities of {cases} cases",
        remedy,
    )


def _destinations(
    bundle: ModelBundle, cases: Sequence[InputCase], output: Path, settings: PredictionSettings
) -> dict[str, Destination]:
    rules = bundle.folder / "postprocessing.json"
    if rules.is_file():
        _copy(rules, output)
    else:
        logger.info("the model has no postprocessing.json, so predictions are written as they are")
    postprocessing = load_postprocessing(rules) if rules.is_file() else None
    return {
        case.case_id: Destination(
            path=output / f"{case.case_id}{case.suffix}",
            save_npz=settings.save_npz,
            postprocessing=postprocessing,
        )
        for case in cases
    }


def _done(destination: Destination) -> bool:
    """Tell whether a prediction exists and is whole; say why one that exists is made again."""
    if not destination.path.is_file():
        return False
    extras = (".npz", ".pkl") if destination.save_npz else ()
    files = [destination.path, *(companion(destination.path, suffix) for suffix in extras)]
    for path in files:
        found = damage(path)
        if found is not None:
            logger.info("%s %s; predicting it again", path.name, found)
            return False
    return True


def _copy(source: Path, folder: Path) -> None:
    if source.is_file():
        with atomic_path(folder / source.name) as temporary:
            shutil.copyfile(source, temporary)
