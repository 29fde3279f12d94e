"""Whether eight neighbouring labels agree, read in pairs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnunetlike.core.typing import LabelMap
from nnunetlike.training.augmentation.vectors import data_of


def _typed(_context: Any, labels: Any, _first: Any, _plane: Any, _row: Any) -> Any:
    """Return whether 2 x 2 x 2 of `labels` are the same.

    In compiled code: `corners_agree(labels, first, plane, row)` with flat `labels` of any integer
    type, the index of the first corner and the distances of planes and rows. Nothing is checked.
    """
    index = types.int64
    return types.boolean(labels, index, index, index), _write


corners_agree = cast(Callable[[LabelMap, int, int, int], bool], intrinsic(_typed))


def _write(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions: two labels are one number of twice the width."""
    labels, first, plane, row = arguments
    kind = signature.args[0]
    data, bits = data_of(context, builder, kind, labels), kind.dtype.bitwidth
    wide = ir.IntType(2 * bits)
    below = builder.add(first, plane)
    corners = [first, builder.add(first, row), below, builder.add(below, row)]
    one, *others = [
        builder.load(builder.bitcast(builder.gep(data, [at]), wide.as_pointer()), align=1)
        for at in corners
    ]
    half = ir.Constant(wide, bits)
    exchanged = builder.or_(builder.shl(one, half), builder.lshr(one, half))
    different = builder.xor(one, exchanged)
    for pair in others:
        different = builder.or_(different, builder.xor(one, pair))
    return builder.icmp_unsigned("==", different, ir.Constant(wide, 0))
