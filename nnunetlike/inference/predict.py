"""A folder of images to a folder of label maps, with reading and writing in the background."""

from __future__ import annotations

import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from nnunetlike.core.disk import require_space
from nnunetlike.core.errors import NnunetlikeError, UsageError, WorkerError
from nnunetlike.core.heap import freed_memory_kept
from nnunetlike.core.intact import damage, unpacked_size
from nnunetlike.core.parallel import (
    SHARE_OF_FREE,
    Budget,
    budget_for,
    named,
    summed_up,
)
from nnunetlike.core.resources import available_cores, disk_space, in_words
from nnunetlike.core.serialization import atomic_path, save_json
from nnunetlike.core.typing import FloatArray
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference.background import Behind, ahead
from nnunetlike.inference.cases import (
    InputCase,
    PrepareCase,
    after_low_resolution,
    find_cases,
    tell_orientations,
)
from nnunetlike.inference.export import (
    Destination,
    ExportSettings,
    companion,
    decisive,
    export_bytes,
    export_label,
    export_probabilities,
)
from nnunetlike.inference.fallback import predict_image
from nnunetlike.inference.model_bundle import ModelBundle
from nnunetlike.inference.settings import Mode, PredictionSettings
from nnunetlike.inference.strategies import Request
from nnunetlike.inference.videos import (
    PredictedVideo,
    as_videos,
    require_video,
    write_video_outputs,
)
from nnunetlike.plans.plans import Plans
from nnunetlike.postprocessing.determine import load_postprocessing
from nnunetlike.preprocessing.label_export import resampled_argmax

logger = logging.getLogger(__name__)
SMALLEST_SHARE = 0.1
"""Compressed over plain bytes of probabilities that are nearly all 0 or 1."""

DESCRIPTIONS = {"v1": ("plans.pkl",), "v2": ("plans.json", "dataset.json")}
"""Files of a model that are put beside its predictions, as the nnU-Net it is of does."""

PREPARE_FACTOR = 12
"""Memory that reading, cropping and resampling a case takes, per byte of its files unpacked."""


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
    every = find_cases(images, bundle.plans.modalities)
    if previous is not None:
        every = after_low_resolution(every, previous)
    if bundle.video is not None:
        every = as_videos(every, images, bundle.video.unit)
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
    for name in DESCRIPTIONS[bundle.plans.conventions]:
        _copy(bundle.folder / name, output)
    if bundle.video is not None:
        there = [PredictedVideo(case, destinations[case.case_id].path) for case in every]
        write_video_outputs([v for v in there if v.label.is_file()], output, settings)
    save_json(time.time() - begin, output / "prediction_time.txt")
    if errors:
        raise summed_up(errors, len(todo))
    return [destinations[case.case_id].path for case in todo]


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
        errors = _predict_cases(self.bundle, cases, destinations, self.settings)
        for case in [c for c in cases if isinstance(errors.get(c.case_id), WorkerError)]:
            error = errors.pop(case.case_id)
            logger.warning("%s. It is predicted once more, alone", str(error).splitlines()[0])
            errors |= _predict_cases(self.bundle, [case], destinations, self.settings)
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


def predict_case(
    bundle: ModelBundle, image: FloatArray, settings: PredictionSettings
) -> npt.NDArray[np.float32]:
    """Return probabilities (K, d, h, w) of a preprocessed image, averaged over the folds.

    Of models of nnU-Net v2 they are logits, as there. Meanwhile cuDNN chooses the fastest of its
    ways, and freed memory is kept, in this whole process.

    Raises:
        ResourceError: the memory of the device does not suffice, even with the sums elsewhere.
    """
    fastest = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True)
    with fastest, freed_memory_kept():
        return mean_over_folds(bundle, image, settings)


def mean_over_folds(
    bundle: ModelBundle, image: FloatArray, settings: PredictionSettings
) -> npt.NDArray[np.float32]:
    """Return what `predict_case` does; nothing that other threads may see is set.

    One network is in memory, and with several folds two arrays of probabilities.

    Raises:
        ResourceError: the memory of the device does not suffice, even with the sums elsewhere.
    """
    patch = bundle.plans.stages[bundle.stage].patch_size
    request = Request(
        patch_size=patch,
        device=settings.device,
        step_size=settings.step_size,
        mirror_axes=bundle.mirrored if settings.mirror else (),
        logits=bundle.plans.conventions == "v2",
        bidirectional=settings.bidirectional,
        autocast=settings.autocast,
        accumulate_on_device=settings.accumulate_on_device,
    )
    total: npt.NDArray[np.float32] | None = None
    device, dtype = settings.device, settings.autocast
    for network in bundle.networks(device, dtype, compiled=settings.compiled):
        found = predict_image(bundle.strategy, network, image, request)
        total = found if total is None else np.add(total, found, out=total)
    assert total is not None  # a bundle has a fold
    return total if len(bundle.weights) == 1 else np.divide(total, len(bundle.weights), out=total)


def _predict_cases(
    bundle: ModelBundle,
    cases: Sequence[InputCase],
    destinations: Mapping[str, Destination],
    settings: PredictionSettings,
) -> dict[str, NnunetlikeError]:
    """Predict and write; return the errors of cases that failed.

    Raises:
        ResourceError: the disk is full.
    """
    errors: dict[str, NnunetlikeError] = {}
    cores = available_cores()
    costs = [_cost(case) for case in cases]
    reading = budget_for(
        min(settings.preprocessing_processes, cores), costs, [case.case_id for case in cases],
        "preparing cases", SHARE_OF_FREE / 2,
    )  # fmt: skip
    writing = Budget(min(settings.export_processes, cores, len(cases)), reading.memory)
    export = ExportSettings.of(bundle.plans)
    prepare = PrepareCase(bundle.plans, bundle.stage)
    with (
        Behind(writing) as behind,
        closing(ahead(prepare, cases, budget=reading, costs=costs)) as prepared,
        tqdm(total=len(cases), desc="predicting", unit="case", disable=None) as bar,
    ):
        for case, outcome in prepared:
            try:
                image, record = _result(outcome)
                probabilities = predict_case(bundle, image, settings)
            except NnunetlikeError as error:
                errors[case.case_id] = named(error, case.case_id)
                logger.warning("%s", errors[case.case_id])
            else:
                destination = destinations[case.case_id]
                _export(
                    behind, probabilities, record, export, destination, settings.mode, case.case_id
                )
            bar.update()
            behind.raise_if_pointless()
    behind.raise_if_pointless()
    return errors | behind.errors


def predict_one(
    bundle: ModelBundle, case: InputCase, destination: Destination, settings: PredictionSettings
) -> None:
    """Read, predict and write one case, all in this process.

    Raises:
        NnunetlikeError: the case is not what it should be, or memory or disk do not suffice.
    """
    image, record = PrepareCase(bundle.plans, bundle.stage)(case)
    probabilities = predict_case(bundle, image, settings)
    with Behind(Budget(0)) as here:
        _export(
            here, probabilities, record, ExportSettings.of(bundle.plans), destination,
            settings.mode, case.case_id,
        )  # fmt: skip
    for error in here.errors.values():
        raise error


def _cost(case: InputCase) -> float:
    return PREPARE_FACTOR * sum(map(unpacked_size, case.files.images))


def _result(
    outcome: tuple[FloatArray, CaseRecord] | NnunetlikeError,
) -> tuple[FloatArray, CaseRecord]:
    if isinstance(outcome, NnunetlikeError):
        raise outcome
    return outcome


def _export(
    behind: Behind,
    probabilities: npt.NDArray[np.float32],
    record: CaseRecord,
    settings: ExportSettings,
    destination: Destination,
    mode: Mode,
    case_id: str,
) -> None:
    if mode == "normal":
        behind.submit(
            case_id, export_probabilities, probabilities, record, settings, destination,
            cost=export_bytes(probabilities, record),
        )  # fmt: skip
        return
    if mode == "fastest":
        settings = replace(settings, order=0)
    values = decisive(probabilities, settings)
    label = resampled_argmax(values, values.shape[1:], regions=settings.regions)
    behind.submit(case_id, export_label, label, record, settings, destination)


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
