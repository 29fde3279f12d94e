"""Where a network pools and which kernels it uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from nnunetlike.core.errors import PlanError
from nnunetlike.core.typing import Size


@dataclass(frozen=True)
class Topology:
    """Strides between levels and kernels of each level.

    Args:
        pool_op_kernel_sizes: stride from level i to i + 1, one entry per pooling.
        conv_kernel_sizes: kernel of each level, one entry more (the bottleneck).
    """

    pool_op_kernel_sizes: tuple[Size, ...]
    conv_kernel_sizes: tuple[Size, ...]

    def __post_init__(self) -> None:
        if len(self.conv_kernel_sizes) != len(self.pool_op_kernel_sizes) + 1:
            raise PlanError(
                f"{len(self.pool_op_kernel_sizes)} poolings need one kernel more, but "
                f"{len(self.conv_kernel_sizes)} conv_kernel_sizes are given"
            )
        if len({len(size) for size in (*self.pool_op_kernel_sizes, *self.conv_kernel_sizes)}) != 1:
            raise PlanError("all pool_op_kernel_sizes and conv_kernel_sizes must have one length")

    @classmethod
    def of(cls, pools: Iterable[Iterable[int]], kernels: Iterable[Iterable[int]]) -> Topology:
        """Return a topology from lists or arrays."""
        return cls(
            tuple(tuple(int(v) for v in pool) for pool in pools),
            tuple(tuple(int(v) for v in kernel) for kernel in kernels),
        )

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.conv_kernel_sizes[0])

    @property
    def num_pools(self) -> int:
        """Number of poolings (levels below the first)."""
        return len(self.pool_op_kernel_sizes)

    @property
    def divisor(self) -> Size:
        """What each axis of a patch must be a multiple of."""
        product = [1] * self.dimension
        for pool in self.pool_op_kernel_sizes:
            product = [a * b for a, b in zip(product, pool, strict=True)]
        return tuple(product)
