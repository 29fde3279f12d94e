import numpy as np
import pytest
from scipy import ndimage

from nnunetlike.evaluation.confusion import Counts
from nnunetlike.evaluation.metrics import Comparison
from nnunetlike.evaluation.metrics.surface import _measured


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.73)])
def test_distances_are_those_of_a_distance_transform(spacing: tuple[float, float, float]) -> None:
    random = np.random.RandomState(0)
    maps = [ndimage.uniform_filter(random.rand(12, 15, 17), 4) > 0.5 for _ in range(2)]
    case = Comparison(Counts(0, 0, 0, 0), (1,), *(m.astype(np.uint8) for m in maps), spacing)
    union = np.argwhere(maps[0] | maps[1])
    box = tuple(slice(a, b + 1) for a, b in zip(union.min(0), union.max(0), strict=True))
    ours, theirs = (m[box] & ~ndimage.binary_erosion(m[box]) for m in maps)
    there = ndimage.distance_transform_edt(~theirs, sampling=spacing)[ours]
    back = ndimage.distance_transform_edt(~ours, sampling=spacing)[theirs]
    for found, wanted in zip(_measured(case, (0, 1, 2)), (there, back), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-14)
