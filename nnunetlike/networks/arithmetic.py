"""How much arithmetic a training step takes."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.flop_counter import FlopCounterMode

from nnunetlike.networks import NetworkSpec, NetworkTask
from nnunetlike.networks.rehearsal import empty_image, of_clip, on_meta, step


def training_operations(
    network_spec: NetworkSpec, task: NetworkTask, patch_size: Sequence[int]
) -> int:
    """Return the floating-point operations of one training step per sample of its batch.

    Additions and multiplications of all convolutions count, one each, forward and backward, and
    again where a checkpointed node is computed twice. Norms, activations, the loss and the
    optimizer do not: they take time, but next to no arithmetic.

    Args:
        network_spec: network to build.
        task: channels, classes and topology.
        patch_size: axes of the patch, in voxels, multiples of the topology's divisor.
    """

    def measure(size: Sequence[int]) -> int:
        """Return the operations of a step with inputs of a size."""
        network = on_meta(network_spec, task)
        counter = FlopCounterMode(display=False)
        with counter:
            step(network, empty_image(task, size, batch_size=1))
        return int(counter.get_total_flops())

    return of_clip(network_spec, patch_size, measure)
