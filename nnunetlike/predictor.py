"""A trained model to use from a program: no command line, no folders, no child process."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
import torch

from nnunetlike.core.errors import NnunetlikeError, UsageError
from nnunetlike.core.parallel import named
from nnunetlike.core.typing import FloatArray
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference.averaging import mean_over_folds
from nnunetlike.inference.export import (
    ExportSettings,
    geometry_of,
    label_within_box,
    probabilities_within_box,
)
from nnunetlike.inference.familiarity import warn_if_unfamiliar
from nnunetlike.inference.image_sources import AnyImage, SourceImage, open_image
from nnunetlike.inference.model_bundle import FINAL, ModelBundle, load_bundle
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.postprocessing.determine import (
    POSTPROCESSING_FILE,
    load_postprocessing,
    postprocessed,
)
from nnunetlike.preprocessing.cropping import uncrop
from nnunetlike.preprocessing.preprocessor import Preprocessor, crop_read
from nnunetlike.training.runtime import choose_device

AT_ONCE = 2
"""Cases that `predict_cases` works on: one at the network, one read, prepared or brought back."""

Label: TypeAlias = npt.NDArray[Any] | sitk.Image
Probabilities: TypeAlias = npt.NDArray[np.float32]
Result: TypeAlias = Label | tuple[Label, Probabilities]


@dataclass(frozen=True)
class Predictor:
    """A trained model in memory.

    Labels are those of `nnUNet_predict`, bit for bit on a CPU; the model's `postprocessing.json` is
    applied where there is one. Threads may share a predictor: they take turns at the network and do
    all else at the same time. What torch, the environment and other threads are set to stays as it
    is.

    Args:
        bundle: the model.
        settings: device, step, mirroring.
        postprocessing: content of the model's postprocessing.json.
    """

    bundle: ModelBundle
    settings: PredictionSettings
    postprocessing: dict[str, Any] | None = None
    _network: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def from_folder(
        cls,
        model: str | Path,
        folds: Sequence[int | str] | None = None,
        device: str | None = None,
        tta: bool = True,
        step_size: float = 0.5,
        checkpoint: str = FINAL,
    ) -> Predictor:
        """Return the trained model of a folder `TRAINER__PLANS`, ready to predict.

        Args:
            model: holds `fold_0`, ... (`RESULTS_FOLDER/nnUNet/3d_fullres/TASK/TRAINER__PLANS`).
            folds: whose probabilities are averaged, numbers or "all"; None takes every `fold_*`.
            device: cpu, cuda, cuda:1, ...; None takes a GPU if there is one.
            tta: average over mirrored views.
            step_size: distance of windows, share of the patch.
            checkpoint: name without `.model`.

        Raises:
            DataError: folder, folds or checkpoints are missing; the message lists what exists.
            UsageError: the device does not exist, or the model is of videos or the second stage of
                a cascade.
        """
        place = choose_device(device)
        with torch.random.fork_rng(devices=[]):  # a new network draws weights before it loads some
            bundle = load_bundle(Path(model).expanduser(), folds, checkpoint)
        _require_images(bundle)
        rules = bundle.folder / POSTPROCESSING_FILE
        return cls(
            bundle=bundle,
            settings=PredictionSettings(
                device=place,
                step_size=step_size,
                mirror=tta,
                autocast=torch.float16 if place.type == "cuda" else None,
            ),
            postprocessing=load_postprocessing(rules) if rules.is_file() else None,
        )

    def predict(
        self,
        image: AnyImage,
        *,
        spacing: Sequence[float] | None = None,
        orientation: str | None = None,
        probabilities: bool = False,
    ) -> Result:
        """Return the label of every voxel of an image, on the image's own grid.

        A case that is far from the training cases is predicted with a warning that says how far.

        Args:
            image: a path, a list of paths (one per channel), a SimpleITK image or a list of them,
                or an array (C, D, H, W), or (D, H, W) of one channel. An array's axes are those of
                `SimpleITK.GetArrayFromImage`: its last axis is x, its first z.
            spacing: of an array, distance of voxels along (D, H, W) in mm; for an array it must be
                given, for all else it must not.
            orientation: of an array, where x, y, z (W, H, D) point, such as `LPS` or `RAS`. None:
                where those of the training cases do (`bundle.plans.orientation`), so nothing is
                turned; nor is a single slice. All else knows its own.
            probabilities: also return those of every class.

        Returns:
            Labels: of an array an array (D, H, W), else a SimpleITK image with the geometry of the
            (first) image. With `probabilities` a tuple of that and an array (K, D, H, W) float32,
            before postprocessing; outside the box of non-zero voxels background has 1, regions 0.

        Raises:
            UsageError: an array without spacing, what is no image, or an orientation of what is no
                array, or for a model that does not know that of its training cases.
            DataError: a file cannot be read, channels are too many or too few, or all is 0.
            ResourceError: the memory of the device does not suffice.
        """
        source = self._open(image, spacing, orientation)
        try:
            prepared, record = self._prepare(source)
            with self._network:
                found = mean_over_folds(self.bundle, prepared, self.settings)
            return self._brought_back(found, record, source, probabilities)
        except NnunetlikeError as error:
            raise named(error, source.case_id) from None

    def predict_cases(
        self,
        cases: Iterable[Any],
        *,
        probabilities: bool = False,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Iterator[tuple[Any, Any]]:
        """Yield each case with what `predict` gives for it, in order.

        While one case is at the network, another is read and prepared, or brought back to its grid,
        in threads of this process. At most two cases are taken and not yet handed back.

        Args:
            cases: images as for `predict`; a dict holds the keywords of `predict`, as in
                `{"image": array, "spacing": (3.0, 0.7, 0.7)}`.
            probabilities: for all cases, as in `predict`.
            on_error: a case that fails ends all with its error, or has the error as its result.

        Raises:
            NnunetlikeError: a case failed, and `on_error` is "raise".
        """
        pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="nnunetlike")
        in_hand: deque[tuple[Any, Future[Result]]] = deque()
        try:
            for case in cases:
                words = case if isinstance(case, dict) else {"image": case}
                words = {"probabilities": probabilities, **words}
                in_hand.append((case, pool.submit(self.predict, **words)))
                if len(in_hand) == AT_ONCE:
                    yield _finished(*in_hand.popleft(), on_error)
            while in_hand:
                yield _finished(*in_hand.popleft(), on_error)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _open(
        self, image: AnyImage, spacing: Sequence[float] | None, orientation: str | None
    ) -> SourceImage:
        plans = self.bundle.plans
        if orientation is not None and not isinstance(image, np.ndarray):
            raise UsageError(
                f"orientation={orientation!r}: files and SimpleITK images know their own. Leave it "
                "out, or hand over an array"
            )
        if orientation is not None and plans.orientation is None:
            raise UsageError(
                f"orientation={orientation!r}: {self.bundle.folder} does not say how its training "
                "cases lie. Turn the array to their orientation, and leave it out"
            )
        return open_image(image, spacing, plans.modalities, orientation or plans.orientation)

    def _prepare(self, source: SourceImage) -> tuple[FloatArray, CaseRecord]:
        plans = self.bundle.plans
        files = CaseFiles(case_id=source.case_id, images=source.files)
        cropped, record = crop_read(source.voxels, None, source.geometry, files)
        preprocessor = Preprocessor(plans, self.bundle.stage)
        prepared = preprocessor.apply(cropped, record, sample_classes=False)
        warn_if_unfamiliar(source.case_id, plans, cropped.image, prepared.record)
        return prepared.image, prepared.record

    def _brought_back(
        self, found: Probabilities, record: CaseRecord, source: SourceImage, probabilities: bool
    ) -> Result:
        export = ExportSettings.of(self.bundle.plans)
        inside = label_within_box(found, record, export)
        label = uncrop(inside, record.crop_box, record.original_size)
        if self.postprocessing is not None:
            label = postprocessed(label, geometry_of(record), self.postprocessing)
        dressed = source.dressed(label)
        if not probabilities:
            return dressed
        within = probabilities_within_box(found, record, export)
        whole = np.zeros((len(within), *record.original_size), np.float32)
        whole[0] = export.regions is None
        box = tuple(slice(start, stop) for start, stop in record.crop_box)
        whole[(slice(None), *box)] = within
        return dressed, whole


def _finished(
    case: Any, future: Future[Result], on_error: Literal["raise", "return"]
) -> tuple[Any, Any]:
    try:
        return case, future.result()
    except NnunetlikeError as error:
        if on_error == "raise":
            raise
        return case, error


def _require_images(bundle: ModelBundle) -> None:
    if bundle.video is not None:
        raise UsageError(
            f"{bundle.folder} predicts videos, which a Predictor does not; use nnUNet_predict -m "
            "video2d"
        )
    if bundle.is_second_stage:
        raise UsageError(
            f"{bundle.folder} is the second stage of a cascade and needs the prediction of the "
            "first; use nnUNet_predict -m 3d_cascade_fullres, or a model of 3d_fullres"
        )
