"""What several folds say of an image together: the mean of their probabilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
from torch import nn

from nnunetlike.core.typing import FloatArray
from nnunetlike.inference.fallback import predict_image, predict_slabs
from nnunetlike.inference.model_bundle import ModelBundle
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.inference.spill import Spilled
from nnunetlike.inference.strategies import Request


def request_of(bundle: ModelBundle, settings: PredictionSettings) -> Request:
    """Return how a model predicts an image."""
    return Request(
        patch_size=bundle.plans.stages[bundle.stage].patch_size,
        device=settings.device,
        step_size=settings.step_size,
        mirror_axes=bundle.mirrored if settings.mirror else (),
        logits=bundle.plans.conventions == "v2",
        bidirectional=settings.bidirectional,
        autocast=settings.autocast,
        accumulate_on_device=settings.accumulate_on_device,
    )


def classes_of(bundle: ModelBundle) -> int:
    """Return the number of channels that a model gives."""
    return cast(int, bundle.network.classes)


def _networks(bundle: ModelBundle, settings: PredictionSettings) -> Iterator[nn.Module]:
    return bundle.networks(settings.device, settings.autocast, compiled=settings.compiled)


def mean_over_folds(
    bundle: ModelBundle, image: FloatArray, settings: PredictionSettings
) -> npt.NDArray[np.float32]:
    """Return probabilities (K, d, h, w) of a preprocessed image, averaged over the folds.

    Of models of nnU-Net v2 they are logits, as there. One network is in memory, and with several
    folds two arrays of probabilities. Nothing that other threads may see is set.

    Raises:
        ResourceError: the memory of the device does not suffice, even with the sums elsewhere.
    """
    request = request_of(bundle, settings)
    total: npt.NDArray[np.float32] | None = None
    for network in _networks(bundle, settings):
        found = predict_image(bundle.strategy, network, image, request)
        total = found if total is None else np.add(total, found, out=total)
    assert total is not None  # a bundle has a fold
    return total if len(bundle.weights) == 1 else np.divide(total, len(bundle.weights), out=total)


def mean_slabs(
    bundle: ModelBundle, image: FloatArray, settings: PredictionSettings, scratch: Path
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield what `mean_over_folds` returns, value for value, in slabs (K, d, h, w) along d.

    The sums over several folds lie in a file meanwhile, so that memory holds a slab. Summed in
    memory, windows of all folds together, they would differ in the last digit.

    Args:
        bundle: the model.
        image: (C, d, h, w).
        settings: see there.
        scratch: name of that file.

    Raises:
        ResourceError: the memory of the device does not suffice, even with the sums elsewhere, or
            the disk has no room for the sums.
    """
    request, folds = request_of(bundle, settings), len(bundle.weights)
    if folds == 1:
        (network,) = _networks(bundle, settings)
        yield from predict_slabs(bundle.strategy, network, image, request)
        return
    sums = Spilled.create(
        scratch, (classes_of(bundle), *image.shape[1:]), f"averaging {folds} folds",
        "predict with fewer folds (-f)",
    )  # fmt: skip
    try:
        for number, network in enumerate(_networks(bundle, settings)):
            begin = 0
            for slab in predict_slabs(bundle.strategy, network, image, request):
                stop = begin + slab.shape[1]
                total = slab
                if number > 0:
                    total = sums.read(begin, stop)
                    total += slab
                if number < folds - 1:
                    sums.write(begin, total)
                else:
                    yield np.divide(total, folds, out=total)
                begin = stop
    finally:
        sums.remove()
