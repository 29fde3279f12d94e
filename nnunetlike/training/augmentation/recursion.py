"""First-order recursions down and up 32 neighbouring columns at once, and blocks turned over.

What a recursion carries from one row to the next stays in registers; rows may lie any distance
apart. All arrays are flat and float32. Nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nnunetlike.training.augmentation.vectors import (
    FLOAT,
    data_of,
    load,
    multiply_add,
    spread,
    store,
    turned,
)

Float32 = npt.NDArray[np.float32]
LANES = 8
COLUMNS = 32
PARTS = range(0, COLUMNS, LANES)


def _typed_down(
    _context: Any, source: Any, _at: Any, target: Any, _to: Any, _step: Any, _rows: Any, _pole: Any
) -> Any:
    """Replace rows of `target` by those of `source` plus `pole` times the row of `target` before.

    In compiled code: `recur_down(source, at, target, to, step, rows, pole)`. The first rows begin
    at `at` and `to`, the others `step` further each; the first of `target` is there already.
    """
    index = types.int64
    return types.void(source, index, target, index, index, index, types.float32), _write_down


def _typed_up(_context: Any, target: Any, _to: Any, _step: Any, _rows: Any, _pole: Any) -> Any:
    """Replace each row of `target` by `pole` times (the row behind it minus the row).

    In compiled code: `recur_up(target, to, step, rows, pole)`, where `to` is the last row, which
    stays, and the others lie `step` before each.
    """
    index = types.int64
    return types.void(target, index, index, index, types.float32), _write_up


def _typed_turn(
    _context: Any, source: Any, _at: Any, _step: Any, target: Any, _to: Any, _stride: Any
) -> Any:
    """Write a block of 8 x 8 entries turned over.

    In compiled code: `turn_block(source, at, step, target, to, stride)`: blocks begin at `at` and
    `to`, their rows lie `step` and `stride` apart.
    """
    index = types.int64
    return types.void(source, index, index, target, index, index), _write_turn


recur_down = cast(
    Callable[[Float32, int, Float32, int, int, int, np.float32], None], intrinsic(_typed_down)
)
recur_up = cast(Callable[[Float32, int, int, int, np.float32], None], intrinsic(_typed_up))
turn_block = cast(Callable[[Float32, int, int, Float32, int, int], None], intrinsic(_typed_turn))


def _write_down(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, at, _, to, step, rows, pole = arguments
    source, target = (data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 2))
    factor = spread(builder, pole, LANES)

    def advance(carried: Any, moved: Any, part: Any) -> Any:
        """Return a row down: the one before times the pole, and what is new."""
        new = load(builder, source, builder.add(builder.add(at, moved), part), LANES)
        return multiply_add(builder, factor, carried, new)

    return _recur(context, builder, target, to, step, rows, advance)


def _write_up(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, to, step, rows, pole = arguments
    target = data_of(context, builder, signature.args[0], arguments[0])
    factor = spread(builder, pole, LANES)

    def advance(carried: Any, moved: Any, part: Any) -> Any:
        """Return a row up: the one below without what is there, times the pole."""
        old = load(builder, target, builder.add(builder.add(to, moved), part), LANES)
        return builder.fmul(factor, builder.fsub(carried, old))

    return _recur(context, builder, target, to, builder.neg(step), rows, advance)


def _recur(
    context: Any, builder: Any, target: Any, to: Any, step: Any, rows: Any, advance: Any
) -> Any:
    """Write the loop over rows of `target`, each `advance(carried, distance so far, column)`."""
    columns = [ir.Constant(to.type, part) for part in PARTS]
    carried = [cgutils.alloca_once(builder, ir.VectorType(FLOAT, LANES)) for _ in PARTS]
    for place, column in zip(carried, columns, strict=True):
        builder.store(load(builder, target, builder.add(to, column), LANES), place)
    one = ir.Constant(to.type, 1)
    with cgutils.for_range(builder, builder.sub(rows, one)) as loop:
        moved = builder.mul(builder.add(loop.index, one), step)
        for place, column in zip(carried, columns, strict=True):
            value = advance(builder.load(place), moved, column)
            builder.store(value, place)
            store(builder, value, target, builder.add(builder.add(to, moved), column))
    return context.get_dummy_value()


def _write_turn(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    _, at, step, _, to, stride = arguments
    source, target = (data_of(context, builder, signature.args[i], arguments[i]) for i in (0, 3))
    rows = []
    for _ in range(LANES):
        rows.append(load(builder, source, at, LANES))
        at = builder.add(at, step)
    for column in turned(builder, rows):
        store(builder, column, target, to)
        to = builder.add(to, stride)
    return context.get_dummy_value()
