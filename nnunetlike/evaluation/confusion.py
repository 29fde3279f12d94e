"""How often each reference label met each predicted label, counted in one pass over a case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nnunetlike.core.compiled import compiled
from nnunetlike.core.errors import ShapeError
from nnunetlike.core.typing import LabelMap

Matrix = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Voxels of one structure: true and false positives, false and true negatives."""

    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True)
class Confusion:
    """Confusion matrix of one case.

    Args:
        values: label values, ascending; they name the first rows and columns.
        matrix: voxels by reference (row) and prediction (column), (K + 1, K + 1); the last row and
            column take every other value.
    """

    values: tuple[int, ...]
    matrix: Matrix

    def counts(self, members: Sequence[int]) -> Counts:
        """Return the counts of a structure: one label, or the union of several."""
        inside = np.zeros(len(self.matrix), dtype=bool)
        inside[[self.values.index(value) for value in members]] = True
        tp = int(self.matrix[np.ix_(inside, inside)].sum())
        reference = int(self.matrix[inside].sum())
        predicted = int(self.matrix[:, inside].sum())
        fp, fn = predicted - tp, reference - tp
        return Counts(tp, fp, fn, int(self.matrix.sum()) - tp - fp - fn)


def confusion(reference: LabelMap, prediction: LabelMap, values: Sequence[int]) -> Confusion:
    """Return the confusion matrix of two label maps.

    Its cost does not depend on how many labels there are.

    Args:
        reference: label map of any shape.
        prediction: label map of the same shape.
        values: label values to tell apart, in any order; repeated ones count once.

    Raises:
        ShapeError: the shapes differ.
    """
    if reference.shape != prediction.shape:
        raise ShapeError(
            f"the prediction has {prediction.shape} voxels (D, H, W) but the reference "
            f"{reference.shape}; predict on the grid of the reference"
        )
    known = tuple(sorted(set(values)))
    lowest, highest = known[0], known[-1]
    table = np.full(highest - lowest + 1, len(known), dtype=np.int64)
    table[np.subtract(known, lowest)] = np.arange(len(known))
    matrix = np.zeros((len(known) + 1, len(known) + 1), dtype=np.int64)
    narrow = reference.dtype == prediction.dtype == np.uint8
    _count(_flat(reference, narrow), _flat(prediction, narrow), table, lowest, matrix)
    return Confusion(known, matrix)


def _flat(label: LabelMap, narrow: bool) -> LabelMap:
    """Return the voxels in C order, as one of the two types the kernel is compiled for."""
    voxels = label.reshape(-1)
    return voxels.astype(np.uint8, copy=False) if narrow else voxels.astype(np.int64, copy=False)


@compiled
def _count(
    reference: LabelMap,
    prediction: LabelMap,
    table: Matrix,
    lowest: int,
    matrix: Matrix,
) -> None:
    """Add every voxel pair to `matrix`, a run of equal pairs at once."""
    if reference.size == 0:
        return
    other = matrix.shape[0] - 1
    last_reference, last_prediction, run = reference[0], prediction[0], 0
    for i in range(reference.size + 1):
        if (
            i < reference.size
            and reference[i] == last_reference
            and prediction[i] == last_prediction
        ):
            run += 1
            continue
        row = np.int64(last_reference) - lowest
        column = np.int64(last_prediction) - lowest
        row = table[row] if 0 <= row < table.size else other
        column = table[column] if 0 <= column < table.size else other
        matrix[row, column] += run
        if i < reference.size:
            last_reference, last_prediction, run = reference[i], prediction[i], 1
