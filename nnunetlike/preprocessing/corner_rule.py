"""The label that holds half of the weight of the eight voxels around each voxel of a new grid.

A cell is what lies between two neighbouring voxels of each of four old rows; its corners are
counted in C order. Most cells hold one label, and most others two. So a cell is put down as two
labels and a bit per corner for either, once for all new rows within it. Then both sums of weights
are taken for many voxels at a time. Only where a cell has more labels and neither of the two
decides are its corners looked at one by one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.typing import IntArray, LabelMap
from nnunetlike.preprocessing.cells import SURELY_MORE, Eight, largest_half
from nnunetlike.preprocessing.taps import Indices, LinearTaps, Weights

BITS = np.uint8
ALL = 255
Bits = npt.NDArray[np.uint8]


@compiled
def apply_corner_rule(
    label: LabelMap, out: LabelMap, depth: LinearTaps, height: LinearTaps, width: LinearTaps
) -> None:
    """Interpolate the masks of `label` (d, h, w) linearly at all voxels of `out` (D, H, W).

    A voxel gets the largest label whose mask reaches 1/2, or 0. Weights are added in double
    precision and in C order, as resizing each mask would, so that ties come out the same.
    """
    old, new, dtype = label.shape[2], out.shape[2], label.dtype
    other, with_first, with_other = np.empty(old, dtype), np.empty(old, BITS), np.empty(old, BITS)
    plain, place = np.empty(new, dtype), np.empty(new, np.int64)
    labels, corners, shares = (
        np.empty((3, new), dtype),
        np.empty((3, new), BITS),
        np.empty((2, new)),
    )
    found, unsure = labels[2], corners[2]
    i = 0
    while i < len(out):
        next_i = _end_of_pair(depth.low, depth.high, i)
        below, above = label[depth.low[i]], label[depth.high[i]]
        j = 0
        while j < out.shape[1]:
            next_j = _end_of_pair(height.low, height.high, j)
            a, b = below[height.low[j]], below[height.high[j]]
            c, d = above[height.low[j]], above[height.high[j]]
            if _are_constant(a, b, c, d):
                out[i:next_i, j:next_j] = a[0]
                j = next_j
                continue
            _describe(a, b, c, d, other, with_first, with_other)
            count = _list_mixed(a, width.low, with_first, plain, place)
            _gather(place[:count], width, a, other, with_first, with_other, labels, corners, shares)
            for z in range(i, next_i):
                for y in range(j, next_j):
                    wa = depth.low_weight[z] * height.low_weight[y]
                    wb = depth.low_weight[z] * height.high_weight[y]
                    wc = depth.high_weight[z] * height.low_weight[y]
                    wd = depth.high_weight[z] * height.high_weight[y]
                    row = out[z, y]
                    row[:] = plain
                    left = _weigh(count, wa, wb, wc, wd, shares, corners, labels)
                    for m in range(count):
                        row[place[m]] = found[m]
                    for m in range(count if left else 0):
                        if unsure[m]:
                            k = place[m]
                            row[k] = _by_all_corners(a, b, c, d, (wa, wb, wc, wd), width, k)
            j = next_j
        i = next_i


@compiled
def _end_of_pair(low: Indices, high: Indices, start: int) -> int:
    """Return where new voxels cease to lie between the same old ones as the one at `start`."""
    stop = start + 1
    while stop < len(low) and low[stop] == low[start] and high[stop] == high[start]:
        stop += 1
    return stop


@compiled
def _are_constant(a: LabelMap, b: LabelMap, c: LabelMap, d: LabelMap) -> bool:
    first, differs = a[0], False
    for x in range(len(a)):
        differs |= (a[x] != first) | (b[x] != first) | (c[x] != first) | (d[x] != first)
    return not differs


@compiled
def _describe(
    a: LabelMap,
    b: LabelMap,
    c: LabelMap,
    d: LabelMap,
    other: LabelMap,
    with_first: Bits,
    with_other: Bits,
) -> None:
    """Write what `_two_labels` says of the cells between four old rows, by their first voxel.

    Behind the last voxel it is repeated.
    """
    last = len(a) - 1
    for x in range(last):
        y = x + 1
        other[x], with_first[x], with_other[x] = _two_labels(
            a[x], a[y], b[x], b[y], c[x], c[y], d[x], d[y]
        )
    other[last], with_first[last], with_other[last] = _two_labels(
        a[last], a[last], b[last], b[last], c[last], c[last], d[last], d[last]
    )


@compiled
def _two_labels(
    p: int, q: int, r: int, s: int, t: int, u: int, v: int, w: int
) -> tuple[int, int, int]:
    """Return a label that differs from `p`, if any, and which corners have `p` and which it."""
    o = q if q != p else p
    o = r if r != p else o
    o = s if s != p else o
    o = t if t != p else o
    o = u if u != p else o
    o = v if v != p else o
    o = w if w != p else o
    first = 1 | (q == p) << 1 | (r == p) << 2 | (s == p) << 3
    first |= (t == p) << 4 | (u == p) << 5 | (v == p) << 6 | (w == p) << 7
    other = (q == o) << 1 | (r == o) << 2 | (s == o) << 3
    other |= (t == o) << 4 | (u == o) << 5 | (v == o) << 6 | (w == o) << 7
    return o, first, other


@compiled
def _list_mixed(
    row: LabelMap, low: Indices, with_first: Bits, plain: LabelMap, place: IntArray
) -> int:
    """Write the label of corner 0 of every new voxel and list the mixed ones; return how many."""
    count = 0
    for k in range(len(plain)):
        x = low[k]
        plain[k] = row[x]
        place[count] = k
        count += with_first[x] != ALL
    return count


@compiled
def _gather(
    place: IntArray,
    width: LinearTaps,
    row: LabelMap,
    other: LabelMap,
    with_first: Bits,
    with_other: Bits,
    labels: LabelMap,
    corners: Bits,
    shares: Weights,
) -> None:
    """Write both labels, their corners and the weights along the row of the voxels `place`."""
    first_of, other_of = labels[0], labels[1]
    corners_first, corners_other = corners[0], corners[1]
    low, high = shares[0], shares[1]
    for m in range(len(place)):
        k = place[m]
        x = width.low[k]
        first_of[m], other_of[m] = row[x], other[x]
        corners_first[m], corners_other[m] = with_first[x], with_other[x]
        low[m], high[m] = width.low_weight[k], width.high_weight[k]


@compiled
def _weigh(
    count: int,
    wa: float,
    wb: float,
    wc: float,
    wd: float,
    shares: Weights,
    corners: Bits,
    labels: LabelMap,
) -> int:
    """Write the label of each mixed voxel by the two labels of its cell.

    Args:
        count: of mixed voxels.
        wa: weight of the old row that has corners 0 and 1; the others follow.
        wb: of the second.
        wc: of the third.
        wd: of the fourth.
        shares: weights along the row (2, W).
        corners: those with the first label, with the other one, and (written) whether the
            voxel is unsure, as neither decides and its cell has further labels; (3, W).
        labels: first and other one, and (written) the voxel's; (3, W).

    Returns:
        How many are unsure.
    """
    low, high = shares[0], shares[1]
    with_first, with_other, unsure = corners[0], corners[1], corners[2]
    first, other, found = labels[0], labels[1], labels[2]
    left = 0
    for m in range(count):
        x, y = low[m], high[m]
        weights = wa * x, wa * y, wb * x, wb * y, wc * x, wc * y, wd * x, wd * y
        one, two = _share(weights, with_first[m]), _share(weights, with_other[m])
        best = first[m] if one >= 0.5 else 0
        best = other[m] if two >= 0.5 else best
        found[m] = max(first[m], other[m]) if (one >= 0.5) & (two >= 0.5) else best
        more = (with_first[m] | with_other[m]) != ALL
        unsure[m] = more & (one <= SURELY_MORE) & (two <= SURELY_MORE)
        left += unsure[m]
    return left


@compiled
def _share(weights: Eight[float], corners: int) -> float:
    """Return the sum of the weights of the corners whose bits are set."""
    total = weights[0] if corners & 1 else 0.0
    total += weights[1] if corners & 2 else 0.0
    total += weights[2] if corners & 4 else 0.0
    total += weights[3] if corners & 8 else 0.0
    total += weights[4] if corners & 16 else 0.0
    total += weights[5] if corners & 32 else 0.0
    total += weights[6] if corners & 64 else 0.0
    total += weights[7] if corners & 128 else 0.0
    return total


@compiled
def _by_all_corners(
    a: LabelMap,
    b: LabelMap,
    c: LabelMap,
    d: LabelMap,
    weights: tuple[float, float, float, float],
    width: LinearTaps,
    k: int,
) -> int:
    """Return the label of new voxel `k` of a row between four old ones of these weights."""
    wa, wb, wc, wd = weights
    x, y, wx, wy = width.low[k], width.high[k], width.low_weight[k], width.high_weight[k]
    return largest_half(
        (a[x], a[y], b[x], b[y], c[x], c[y], d[x], d[y]),
        (wa * wx, wa * wy, wb * wx, wb * wy, wc * wx, wc * wy, wd * wx, wd * wy),
    )
