"""What happens when a device's memory runs out in the middle of a prediction."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nnunetlike.core.errors import ResourceError
from nnunetlike.core.typing import FloatArray
from nnunetlike.inference.strategies import Request, Strategy

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
        logger.warning(
            "the memory of %s ran out on an image of %s voxels (C, D, H, W); predicting it again "
            "with the sums in main memory",
            request.device,
            image.shape,
        )
    torch.cuda.empty_cache()  # outside the handler, whose error keeps arrays alive
    try:
        return strategy(network, image, replace(request, accumulate_on_device=False))
    except torch.cuda.OutOfMemoryError:
        raise ResourceError(
            f"the memory of {request.device} ran out twice on an image of {image.shape} voxels (C, "
            f"D, H, W), the second time with the sums in main memory. The network needs more for a "
            f"window of {tuple(request.patch_size)} voxels than is free: end what else uses the "
            "GPU (nvidia-smi lists it), or use --device cpu"
        ) from None
