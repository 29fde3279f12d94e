"""Parts that U-Net and UNet++ are built of, in 2D and 3D.

Axes: B batch, C channels or features, then the patch, (D, H, W) or (H, W).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, group_norm
from torch.utils.checkpoint import checkpoint

from nnunetlike.core.errors import PlanError
from nnunetlike.core.typing import Size
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.initialization import SLOPE
from nnunetlike.networks.sketch import features_of
from nnunetlike.plans.topology import Topology

_CONVOLUTION: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP_CONVOLUTION: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Every size of an encoder-decoder; level 0 is the full resolution, the last the bottleneck."""

    channels: int
    classes: int
    features: tuple[int, ...]
    """Features of each level, one entry more than there are poolings."""

    topology: Topology
    conv_per_stage: int = 2

    def __post_init__(self) -> None:
        if self.num_pools < 1 or self.conv_per_stage < 1:
            raise PlanError(
                f"a network needs at least one pooling and one convolution per stage, but the "
                f"plans ask for {self.num_pools} and {self.conv_per_stage}. Plan this data set "
                "again"
            )
        if len(self.features) != self.num_pools + 1:
            raise PlanError(
                f"{self.num_pools} poolings make {self.num_pools + 1} levels, but features are "
                f"given for {len(self.features)}: {self.features}"
            )

    @classmethod
    def of(cls, task: NetworkTask, base_features: int | None = None) -> Architecture:
        """Return the sizes for a task: features double from level to level up to the cap.

        Args:
            task: what the data set asks for.
            base_features: features of level 0; those of the task when absent.
        """
        return cls(
            channels=task.channels,
            classes=task.classes,
            features=features_of(task, base_features),
            topology=task.topology,
            conv_per_stage=task.conv_per_stage,
        )

    @property
    def num_pools(self) -> int:
        """Number of poolings; also the level of the bottleneck."""
        return self.topology.num_pools

    @property
    def node_convs(self) -> int:
        """Units of a decoder node and of the bottleneck: never one alone, as in nnU-Net v1."""
        return max(self.conv_per_stage, 2)

    def encoder(self) -> nn.ModuleList:
        """Return one stack of units per level; levels begin with a strided unit, not a pooling."""
        pools, kernels = self.topology.pool_op_kernel_sizes, self.topology.conv_kernel_sizes
        strides = ((1,) * self.topology.dimension, *pools)
        inputs = (self.channels, *self.features)
        counts = [self.conv_per_stage] * self.num_pools + [self.node_convs]
        return nn.ModuleList(
            conv_units(*sizes)
            for sizes in zip(inputs[:-1], self.features, kernels, strides, counts, strict=True)
        )

    def node(self, level: int, skips: int, *, up_first: bool, checkpointed: bool) -> Node:
        """Return a decoder node of `level` that joins `skips` tensors with what comes from below.

        Its kernel is that of the level below, one off from the encoder: trained weights of
        nnU-Net v1 ask for it.
        """
        return Node(
            below=self.features[level + 1],
            features=self.features[level],
            skips=skips,
            stride=self.topology.pool_op_kernel_sizes[level],
            kernel=self.topology.conv_kernel_sizes[level + 1],
            count=self.node_convs,
            up_first=up_first,
            checkpointed=checkpointed,
        )

    def head(self, level: int) -> nn.Module:
        """Return the 1x1 convolution from a level's features to logits."""
        dimension = self.topology.dimension
        head: nn.Module = _CONVOLUTION[dimension](self.features[level], self.classes, 1, bias=False)
        return head


def conv_units(
    channels: int, features: int, kernel: Size, stride: Size, count: int
) -> nn.Sequential:
    """Return `count` units of convolution, instance norm and LeakyReLU; the first strides."""
    unit = (1,) * len(stride)
    return nn.Sequential(
        _unit(channels, features, kernel, stride),
        *(_unit(features, features, kernel, unit) for _ in range(count - 1)),
    )


class Unit(nn.Sequential):
    """Convolution `conv`, instance norm `norm` and LeakyReLU `activation`.

    torch's instance norm first copies what is channels-last to channels-first, which takes longer
    than a convolution in bfloat16. Its group norm with one channel per group, the same arithmetic
    with sums in float32, does not. It takes its place for such values, and for no others: those of
    float32 stay equal to nnU-Net v1's bit by bit.
    """

    conv: nn.Module
    norm: nn.InstanceNorm2d | nn.InstanceNorm3d
    activation: nn.Module

    def forward(self, features: Tensor) -> Tensor:
        """Return the unit's features, (B, F, *patch of this level)."""
        found: Tensor = self.conv(features)
        norm = self.norm
        if found.dtype == torch.bfloat16 and not found.is_contiguous():
            found = group_norm(found, found.shape[1], norm.weight, norm.bias, norm.eps)
        elif torch.is_grad_enabled():
            shape = found.shape
            found = self.activation(_normalised_flat(found, norm))
            return found.view(shape)
        else:
            found = norm(found)
        result: Tensor = self.activation(found)
        return result


def _normalised_flat(features: Tensor, norm: nn.InstanceNorm2d | nn.InstanceNorm3d) -> Tensor:
    """Return the instance norm of features (B, F, *patch) as (1, B F, *patch), as torch makes it.

    What torch returns is a view of that. An activation in place of a view makes autograd fill,
    copy and clone a whole tensor in the backward pass, in place of the tensor itself it does not.
    """
    batch = len(features)
    return batch_norm(
        features.contiguous().view(1, -1, *features.shape[2:]), None, None,
        norm.weight.repeat(batch), norm.bias.repeat(batch), training=True, momentum=0.0,
        eps=norm.eps,
    )  # fmt: skip


def _unit(channels: int, features: int, kernel: Size, stride: Size) -> Unit:
    dimension = len(kernel)
    padding = tuple((size - 1) // 2 for size in kernel)
    return Unit(
        OrderedDict(
            conv=_CONVOLUTION[dimension](channels, features, kernel, stride, padding),
            norm=_NORM[dimension](features, affine=True),
            activation=nn.LeakyReLU(SLOPE, inplace=True),
        )
    )


def encode(encoder: nn.ModuleList, image: Tensor) -> list[Tensor]:
    """Return the features of every level, full resolution first."""
    levels = []
    features = image
    for level in encoder:
        features = level(features)
        levels.append(features)
    return levels


class Node(nn.Module):
    """Up-convolve what comes from below, join it with the skips of this level, and convolve.

    Args:
        below: features of the tensor from the level below.
        features: features of this level: of each skip, of the up-convolution and of the result.
        skips: how many tensors of this level are joined.
        stride: kernel and stride of the up-convolution.
        kernel: kernel of the units.
        count: how many units.
        up_first: whether the up-convolved tensor comes before the skips when joined.
        checkpointed: keep the node's inputs only, and compute the node again in the backward pass.
            Joined tensors are what a nested network spends most memory on; they are then never
            kept.

    Source: Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv:1604.06174.
    """

    def __init__(
        self,
        *,
        below: int,
        features: int,
        skips: int,
        stride: Size,
        kernel: Size,
        count: int,
        up_first: bool,
        checkpointed: bool,
    ) -> None:
        super().__init__()
        dimension = len(stride)
        self.up = _UP_CONVOLUTION[dimension](below, features, stride, stride, bias=False)
        self.convs = conv_units((skips + 1) * features, features, kernel, (1,) * dimension, count)
        self.up_first = up_first
        self.checkpointed = checkpointed

    def forward(self, below: Tensor, *skips: Tensor) -> Tensor:
        """Return the node's features, (B, F, *patch of this level)."""
        if self.checkpointed and torch.is_grad_enabled():
            result: Tensor = checkpoint(
                self._compute, below, *skips, use_reentrant=False, preserve_rng_state=False
            )
            return result
        return self._compute(below, *skips)

    def _compute(self, below: Tensor, *skips: Tensor) -> Tensor:
        up = self.up(below)
        joined = (up, *skips) if self.up_first else (*skips, up)
        result: Tensor = self.convs(torch.cat(joined, dim=1))
        return result
