import numpy as np

from nnunetlike.training.augmentation.label_gather import mark_mixed
from nnunetlike.training.augmentation.spatial import Affine, resample


def test_a_mark_tells_where_eight_voxels_do_not_agree() -> None:
    label = np.random.RandomState(0).randint(-1, 2, (4, 5, 6)).astype(np.int16) // 2
    marked = np.empty_like(label)
    mark_mixed(label, marked)
    longer = np.pad(label, ((0, 1),) * 3, mode="edge")
    for place in np.ndindex(label.shape):
        cell = longer[tuple(slice(n, n + 2) for n in place)]
        assert marked[place] == 2 * label[place] + (cell.min() != cell.max())


def test_labels_too_large_for_two_bytes_are_resampled_alike() -> None:
    random = np.random.RandomState(0)
    image, label = np.zeros((1, 8, 8, 8), np.float32), random.randint(0, 3, (8, 8, 8))
    affine = Affine((0.3, -0.2, 0.1), 0.9)
    _, small = resample(image, label.astype(np.int16), affine, (6, 6, 6))
    _, large = resample(image, label.astype(np.int16) * 10000, affine, (6, 6, 6))
    assert np.array_equal(small * 10000, large)
