"""Words of LLVM for what numba's loops cannot say: vectors of single precision, wherever they lie.

numba makes vector code of loops over neighbouring entries only. The few expressions that need more
are written down in LLVM's own terms, on these words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

FLOAT = ir.FloatType()
INDEX = ir.IntType(32)


def data_of(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    """Return where the entries of an array of a numba type lie."""
    return context.make_array(kind)(context, builder, array).data


def load(builder: Any, data: Any, index: Any, lanes: int) -> Any:
    """Return `lanes` entries from an index on."""
    return builder.load(_place(builder, data, index, lanes), align=4)


def store(builder: Any, vector: Any, data: Any, index: Any) -> None:
    """Write a vector from an index on."""
    builder.store(vector, _place(builder, data, index, vector.type.count), align=4)


def _place(builder: Any, data: Any, index: Any, lanes: int) -> Any:
    kind = ir.VectorType(FLOAT, lanes)
    return builder.bitcast(builder.gep(data, [index]), kind.as_pointer())


def spread(builder: Any, scalar: Any, lanes: int) -> Any:
    """Return a vector with `scalar` in every lane."""
    undefined = ir.Constant(ir.VectorType(FLOAT, lanes), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(INDEX, 0))
    return mixed(builder, one, undefined, [0] * lanes)


def mixed(builder: Any, a: Any, b: Any, lanes: Sequence[int]) -> Any:
    """Return the given lanes of `a` followed by `b`."""
    kind = ir.VectorType(INDEX, len(lanes))
    return builder.shuffle_vector(a, b, ir.Constant(kind, list(lanes)))


def multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a · b + c, without rounding in between where the machine can do that."""
    name = f"llvm.fmuladd.v{a.type.count}f32"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, [a, b, c])


def turned(builder: Any, rows: Sequence[Any]) -> list[Any]:
    """Return the columns of four vectors of four lanes, or of eight of eight.

    Blocks of 4 x 4 are turned in two rounds, in the halves of eight lanes alike; then halves are
    exchanged.
    """
    count = len(rows)
    halves = range(0, count, 4)

    def pattern(*lanes: int) -> list[int]:
        """Return lanes of the first (0 to 3) and second (4 to 7) vector, in each half of both."""
        return [half + lane % 4 + count * (lane // 4) for half in halves for lane in lanes]

    def combined(a: Any, b: Any, *patterns: Sequence[int]) -> list[Any]:
        """Return two vectors mixed by each of some patterns."""
        return [mixed(builder, a, b, pattern(*lanes)) for lanes in patterns]

    columns: list[Any] = []
    for top in halves:
        a, b, c, d = rows[top : top + 4]
        first, second = (combined(*pair, (0, 4, 1, 5), (2, 6, 3, 7)) for pair in ((a, b), (c, d)))
        for pair in zip(first, second, strict=True):
            columns += combined(*pair, (0, 1, 4, 5), (2, 3, 6, 7))
    if count == 4:
        return columns
    ends = ([0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])
    pairs = list(zip(columns[:4], columns[4:], strict=True))
    return [mixed(builder, *pair, lanes) for lanes in ends for pair in pairs]
