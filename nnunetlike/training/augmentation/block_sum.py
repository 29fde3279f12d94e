"""Weighted sums of 4 x 4 x 4 neighbouring entries, for four voxels whose blocks lie anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnunetlike.training.augmentation.vectors import (
    data_of,
    load,
    multiply_add,
    spread,
    store,
    turned,
)

Float32 = npt.NDArray[np.float32]
LANES = 4
"""Entries of a block along each axis, and voxels."""


def _typed(
    _context: Any, entries: Any, firsts: Any, weights: Any, _at: Any, _plane: Any, _row: Any,
    result: Any,
) -> Any:  # fmt: skip
    """Write four sums of 64 `entries`, each times its three weights.

    In compiled code: `block_sums(entries, firsts, weights, at, plane, row, result)` with flat
    float32 `entries`. Voxel i has the index of the first entry of its block in `firsts[i]`, and in
    `weights[:, i]` four weights each for planes, rows and entries of a row, which are `plane` and
    `row` entries apart. `result[at : at + 4]` is written. Nothing is checked.
    """
    index = types.int64
    return types.void(entries, firsts, weights, index, index, index, result), _write


block_sums = cast(
    Callable[[Float32, npt.NDArray[np.int64], Float32, int, int, int, Float32], None],
    intrinsic(_typed),
)


def _typed_prefetch(_context: Any, entries: Any, _index: Any) -> Any:
    """Ask the machine to have an entry in the cache soon: `prefetch(entries, index)`.

    It is a hint, so the index may lie outside of `entries`.
    """
    return types.void(entries, types.int64), _write_prefetch


prefetch = cast(Callable[[Float32, int], None], intrinsic(_typed_prefetch))


def _write_prefetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instruction: to read, into the caches beyond the first, data."""
    data = data_of(context, builder, signature.args[0], arguments[0])
    place = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
    number = ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
    hint = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
    builder.call(hint, [place, *(ir.Constant(number, n) for n in (0, 2, 1))])
    return context.get_dummy_value()


def _write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions; the order of additions is that of rows, planes and then entries."""
    entries, firsts, weights, result = (
        data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 1, 2, 6)
    )
    at, plane, row = arguments[3:6]
    table = context.make_array(signature.args[2])(context, builder, arguments[2])
    width = builder.extract_value(table.shape, 1)
    taps = [
        builder.add(at, builder.mul(width, ir.Constant(at.type, tap))) for tap in range(3 * LANES)
    ]
    steps = [builder.mul(row, ir.Constant(row.type, n)) for n in range(LANES)]
    totals = []
    for voxel in range(LANES):
        here = ir.Constant(at.type, voxel)
        by_plane, by_row = (
            [_weight(builder, weights, builder.add(tap, here)) for tap in taps[begin:][:LANES]]
            for begin in (0, LANES)
        )
        first = builder.load(builder.gep(firsts, [builder.add(at, here)]))
        sums = []
        for _ in range(LANES):
            rows = [load(builder, entries, builder.add(first, step), LANES) for step in steps]
            sums.append(_dot(builder, by_row, rows))
            first = builder.add(first, plane)
        totals.append(_dot(builder, by_plane, sums))
    by_entry = [load(builder, weights, tap, LANES) for tap in taps[2 * LANES :]]
    store(builder, _dot(builder, by_entry, turned(builder, totals)), result, at)
    return context.get_dummy_value()


def _weight(builder: Any, weights: Any, index: Any) -> Any:
    return spread(builder, builder.load(builder.gep(weights, [index])), LANES)


def _dot(builder: Any, factors: Sequence[Any], vectors: Sequence[Any]) -> Any:
    """Return the sum of products."""
    pairs = zip(factors[1:], vectors[1:], strict=True)
    first = builder.fmul(factors[0], vectors[0])
    return reduce(lambda total, pair: multiply_add(builder, pair[0], pair[1], total), pairs, first)
