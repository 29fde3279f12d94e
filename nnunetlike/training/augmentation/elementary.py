"""Logarithm and exponential to base 2 in single precision, as loops over arrays can have them.

Library functions are called once per number; these are a dozen products and sums, which a compiler
turns into vector code. Results are the same on every machine, as nothing but IEEE arithmetic and
shifts occurs. Polynomials: least squares of the relative error at Chebyshev nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from nnunetlike.core.compiled import compiled

ONE, HALF = np.float32(1), np.float32(0.5)
SMALLEST = np.float32(2.0**-126)
"""Below, numbers have fewer digits."""

LEAST = np.float32(-126)

ROOT_HALF = np.int32(0x3F3504F3)
"""Bits of the square root of 1/2."""

MANTISSA = np.int32(0x7FFFFF)


def _typed_bits(_context: Any, number: Any) -> Any:
    return types.int32(types.float32), _as(ir.IntType(32))


def _typed_number(_context: Any, bits: Any) -> Any:
    return types.float32(types.int32), _as(ir.FloatType())


def _as(kind: Any) -> Callable[..., Any]:
    """Return what writes the instruction that takes four bytes as another type."""
    return lambda _context, builder, _signature, arguments: builder.bitcast(arguments[0], kind)


bits_of = cast(Callable[[np.float32], np.int32], intrinsic(_typed_bits))
number_of = cast(Callable[[np.int32], np.float32], intrinsic(_typed_number))

L0 = np.float32(1.44269502)
L1 = np.float32(-0.721347332)
L2 = np.float32(0.480898559)
L3 = np.float32(-0.360696524)
L4 = np.float32(0.288551062)
L5 = np.float32(-0.239607081)
L6 = np.float32(0.204883322)
L7 = np.float32(-0.191421777)
L8 = np.float32(0.184619501)
L9 = np.float32(-0.107251652)
E0 = np.float32(1)
E1 = np.float32(0.693147182)
E2 = np.float32(0.240226462)
E3 = np.float32(0.0555032901)
E4 = np.float32(0.00961851981)
E5 = np.float32(0.00133998599)
E6 = np.float32(0.000153375775)


@compiled
def split(x: np.float32) -> tuple[np.float32, np.float32]:
    """Return e and f with log2 x = e + f for x >= `SMALLEST`: e whole, |f| <= 1/2."""
    bits = np.int32(bits_of(x) - ROOT_HALF)
    whole = np.float32(np.int32(bits >> np.int32(23)))
    m = number_of(np.int32(np.int32(bits & MANTISSA) + ROOT_HALF)) - ONE
    f = L5 + m * (L6 + m * (L7 + m * (L8 + m * L9)))
    return whole, m * (L0 + m * (L1 + m * (L2 + m * (L3 + m * (L4 + m * f)))))


@compiled
def power_of_two(whole: np.float32, rest: np.float32) -> np.float32:
    """Return 2^(whole + rest) for a whole number from -126 to 127 and |rest| <= 1/2."""
    r = E3 + rest * (E4 + rest * (E5 + rest * E6))
    r = E0 + rest * (E1 + rest * (E2 + rest * r))
    return r * number_of(np.int32(np.int32(np.int32(whole) + np.int32(127)) << np.int32(23)))


@compiled
def power(x: np.float32, coarse: np.float32, fine: np.float32) -> np.float32:
    """Return x^(coarse + fine), off by 3e-7 of it at most; 0 where it or x have fewer digits.

    Args:
        x: from 0 to 1.
        coarse: the exponent, above 0, with its last twelve bits 0, so that products are exact.
        fine: what is missing to the exponent.
    """
    whole, rest = split(x)
    rest = fine * whole + (coarse + fine) * rest
    nearest = np.floor(coarse * whole + rest + HALF)
    value = power_of_two(max(nearest, LEAST), (coarse * whole - nearest) + rest)
    return value if x >= SMALLEST and nearest >= LEAST else np.float32(0)


@compiled
def halves(exponent: np.float32) -> tuple[np.float32, np.float32]:
    """Return the first twelve digits of an exponent and the rest, as `power` takes them."""
    coarse = number_of(np.int32(bits_of(exponent) & np.int32(-4096)))
    return coarse, exponent - coarse
