"""What happens when a device's memory runs out in the middle of a prediction."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nnunetlike.core.errors import ResourceError
from nnunetlike.core.typing import FloatArray
from nnunetlike.inference.strategies import Request, Strategy, slabs_of

logger = logging.getLogger(__name__)


def predict_image(
    strategy: Strategy, network: nn.Module, image: FloatArray, request: Request
) -> npt.NDArray[np.float32]:
    """Return the probabilities of an image; sum in main memory if the device's runs out.

    Only lack of device memory is answered so, and only once; any other error is raised as it is.

    Raises:
        ResourceError: the network alone needs more than the device has.
    """
    try:
        return strategy(network, image, request)
    except torch.cuda.OutOfMemoryError:
        _tell(image, request)
    torch.cuda.empty_cache()  # outside the handler, whose error keeps arrays alive
    try:
        return strategy(network, image, replace(request, accumulate_on_device=False))
    except torch.cuda.OutOfMemoryError:
        raise _too_small(image, request) from None


def predict_slabs(
    strategy: Strategy, network: nn.Module, image: FloatArray, request: Request
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the probabilities of an image in slabs, with the answer of `predict_image`.

    Slices that were handed on before the memory ran out are computed again and left out.

    Raises:
        ResourceError: the network alone needs more than the device has.
    """
    done = 0
    for attempt in (request, replace(request, accumulate_on_device=False)):
        begin = 0
        try:
            for slab in slabs_of(strategy, network, image, attempt):
                ahead = slab[:, max(0, done - begin) :]
                begin += slab.shape[1]
                if ahead.shape[1] > 0:
                    yield ahead
                    done = begin
        except torch.cuda.OutOfMemoryError:
            if attempt is not request:
                raise _too_small(image, request) from None
            _tell(image, request)
        else:
            return
        torch.cuda.empty_cache()  # outside the handler, whose error keeps arrays alive


def _tell(image: FloatArray, request: Request) -> None:
    logger.warning(
        "the memory of %s ran out on an image of %s voxels (C, D, H, W); predicting it again "
        "with the sums in main memory",
        request.device,
        image.shape,
    )


def _too_small(image: FloatArray, request: Request) -> ResourceError:
    return ResourceError(
        f"the memory of {request.device} ran out twice on an image of {image.shape} voxels (C, "
        f"D, H, W), the second time with the sums in main memory. The network needs more for a "
        f"window of {tuple(request.patch_size)} voxels than is free: end what else uses the "
        "GPU (nvidia-smi lists it), or use --device cpu"
    )
