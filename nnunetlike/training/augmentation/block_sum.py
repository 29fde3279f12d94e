"""The weighted sum of 4 x 4 x 4 neighbouring entries, four of the last axis at a time.

numba makes vector code of loops only, and here the loop is over voxels that lie anywhere. So this
one expression is written down in LLVM's own terms; it takes a quarter of the time of a scalar one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 4
VECTOR = ir.VectorType(ir.FloatType(), LANES)
INDEX = ir.IntType(32)


def _typed(
    _context: Any, entries: Any, _first: Any, _plane: Any, _row: Any, z: Any, y: Any, x: Any
) -> Any:
    """Return the sum of 64 `entries`, each times its three weights.

    In compiled code: `block_sum(entries, first, plane, row, z, y, x)` with `entries` flat float32,
    the index `first` of the block's first entry, the distance of its planes and of its rows, and
    four float32 weights each for planes, rows and entries of a row. Nothing is checked.
    """
    index = types.int64
    return types.float32(entries, index, index, index, z, y, x), _write


block_sum = cast(Callable[..., np.float32], intrinsic(_typed))


def _write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions; the order of additions is that of planes, rows and then entries."""
    entries, first, plane, row, *weights = arguments
    data = context.make_array(signature.args[0])(context, builder, entries).data
    by_plane, by_row, by_entry = (
        [builder.extract_value(four, i) for i in range(LANES)] for four in weights
    )
    rows = [_spread(builder, weight) for weight in by_row]

    def row_at(index: Any) -> Any:
        """Load four entries from an index on."""
        place = builder.bitcast(builder.gep(data, [index]), VECTOR.as_pointer())
        return builder.load(place, align=4)

    total = None
    for weight in by_plane:
        index, products = first, []
        for spread in rows:
            products.append(builder.fmul(row_at(index), spread))
            index = builder.add(index, row)
        summed = builder.fmul(reduce(builder.fadd, products), _spread(builder, weight))
        total = summed if total is None else builder.fadd(total, summed)
        first = builder.add(first, plane)
    a, b, c, d = (
        builder.fmul(builder.extract_element(total, ir.Constant(INDEX, i)), weight)
        for i, weight in enumerate(by_entry)
    )
    return builder.fadd(builder.fadd(a, b), builder.fadd(c, d))


def _spread(builder: Any, scalar: Any) -> Any:
    """Return a vector with `scalar` in every lane."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(INDEX, 0))
    lanes = ir.Constant(ir.VectorType(INDEX, LANES), [0] * LANES)
    return builder.shuffle_vector(one, undefined, lanes)
