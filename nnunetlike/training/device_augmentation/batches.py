"""A batch as it was read made into the batch that trains, patch by patch, on a device."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from nnunetlike.core.typing import Size
from nnunetlike.training.device_augmentation.intensity import change_intensities
from nnunetlike.training.device_augmentation.orders import PatchOrder
from nnunetlike.training.device_augmentation.placement import BYTES_PER_POINT, POINTS, placed
from nnunetlike.training.objectives import Batch
from nnunetlike.training.sources import ReadBatch


@torch.no_grad()
def augmented(batch: ReadBatch, device: torch.device) -> Batch:
    """Return the patches of a batch on a device, changed as ordered.

    Memory beside the result is that of one patch at a time. Nothing is read back from the device.

    Args:
        batch: blocks as read, on the host.
        device: where the changes are computed.
    """
    samples = len(batch["orders"])
    size = batch["orders"][0].patch_size
    image = torch.empty(samples, len(batch["image"][0]), *size, device=device)
    label = torch.empty(samples, *size, dtype=torch.int16, device=device)
    with torch.autocast(device.type, enabled=False):
        for j, order in enumerate(batch["orders"]):
            block, labels = (
                torch.as_tensor(part).to(device, non_blocking=True)
                for part in (batch["image"][j], batch["label"][j])
            )
            image[j], label[j] = augmented_patch(block, labels, order)
    return {"image": image, "label": label, "case_ids": batch["case_ids"]}


def augmented_patch(image: Tensor, label: Tensor, order: PatchOrder) -> tuple[Tensor, Tensor]:
    """Return one patch (C, *patch) and its label (*patch), no label below 0.

    Args:
        image: block that was read, (C, *block) float32.
        label: (*block) int16, -1 outside the non-zero region.
        order: what to do.
    """
    changes = order.changes
    image, label = placed(image, label, order)
    image = change_intensities(image, changes, order.noise_seed, in_plane=order.in_plane)
    if changes.mirrored:
        label = label.flip(changes.mirrored)
        image = image.flip([axis + 1 for axis in changes.mirrored])
    if order.masked:
        outside = label < 0
        image = torch.stack(
            [c.masked_fill(outside, 0) if i in order.masked else c for i, c in enumerate(image)]
        )
    return image, label.clamp(min=0)


def device_bytes(channels: int, read: Size, patch_size: Size, samples: int) -> int:
    """Return about how many bytes `augmented` needs on the device at most.

    Counted are the batch, the next one, which is made while the network is busy with it, and for
    one patch the block, two stages of its coefficients and the scratch of its points.

    Args:
        channels: C.
        read: voxels of the largest block, per axis.
        patch_size: of the result.
        samples: of a batch.
    """
    voxels, block = prod(patch_size), prod(n + 3 for n in read)
    each = 4 * channels + 2
    points = min(POINTS, channels * voxels) * BYTES_PER_POINT
    return 2 * samples * each * voxels + 3 * each * block + points
