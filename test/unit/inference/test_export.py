"""Export: axes, settings, types and memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.serialization import load_pickle
from nnunetlike.core.typing import Shape3, Spacing3
from nnunetlike.data.imageio import format_of
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference.export import (
    Destination,
    ExportSettings,
    companion,
    export_label,
    geometry_of,
)


def _record(
    size: Shape3, spacing: Spacing3 = (1.0, 1.0, 1.0), after: Spacing3 | None = None
) -> CaseRecord:
    return CaseRecord(
        original_size=size,
        original_spacing=spacing,
        image_files=("a_0000.nii.gz",),
        label_file=None,
        itk_origin=(1.0, 2.0, 3.0),
        itk_spacing=(spacing[2], spacing[1], spacing[0]),
        itk_direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0),
        crop_box=((0, size[0]), (0, size[1]), (0, size[2])),
        classes=(0.0,),
        size_after_cropping=size,
        spacing_after_resampling=after or spacing,
        size_after_resampling=size,
    )


def _one_hot(label: np.ndarray, classes: int) -> np.ndarray:
    return np.stack([label == k for k in range(classes)]).astype(np.float32)


def _written(path: Path) -> np.ndarray:
    return np.asarray(format_of(path).read_label(path)[0])


def test_network_axes_return_to_the_axes_of_the_file(
    tmp_path: Path, export_probabilities: Callable[..., None]
) -> None:
    label = np.random.default_rng(0).integers(0, 3, (4, 5, 6))
    settings = ExportSettings(transpose_backward=(1, 2, 0))
    seen = label.transpose(2, 0, 1)  # transpose_forward
    path = tmp_path / "case.nii.gz"
    export_probabilities(_one_hot(seen, 3), _record((4, 5, 6)), settings, Destination(path=path))
    assert np.array_equal(_written(path), label)
    export_label(seen, _record((4, 5, 6)), settings, Destination(path=path))
    assert np.array_equal(_written(path), label)


def test_a_cropped_case_returns_to_its_box(
    tmp_path: Path, export_probabilities: Callable[..., None]
) -> None:
    record = replace(
        _record((4, 5, 6)), crop_box=((1, 3), (2, 5), (0, 6)), size_after_cropping=(2, 3, 6)
    )
    path = tmp_path / "case.nii.gz"
    ones = _one_hot(np.ones((2, 3, 6)), 2)
    export_probabilities(ones, record, ExportSettings(), Destination(path=path))
    found = _written(path)
    assert found.sum() == 36 and found[1:3, 2:5].all()


def test_geometry_is_that_of_the_source(tmp_path: Path) -> None:
    record = _record((4, 5, 6), (2.0, 0.5, 0.25))
    path = tmp_path / "case.nii.gz"
    label = np.zeros((4, 5, 6), np.uint8)
    export_label(label, record, ExportSettings(), Destination(path=path))
    found = format_of(path).read_label(path)[1]
    assert found.spacing == (2.0, 0.5, 0.25) and found.origin == (1.0, 2.0, 3.0)
    assert found == geometry_of(record)


def test_the_separate_axis_is_found_in_file_order() -> None:
    # The network's first axis (5 mm) is the file's last.
    record = _record((4, 5, 6), (1.0, 1.0, 1.0), after=(5.0, 1.0, 1.0))
    assert ExportSettings(transpose_backward=(1, 2, 0)).axis(record) == 2


def test_the_source_spacing_decides_before_the_networks() -> None:
    record = _record((4, 5, 6), (1.0, 5.0, 1.0), after=(5.0, 1.0, 1.0))
    assert ExportSettings(transpose_backward=(0, 1, 2)).axis(record) == 1


def test_more_than_256_classes_are_written_with_16_bits(
    tmp_path: Path, export_probabilities: Callable[..., None]
) -> None:
    label = np.arange(300).reshape(3, 10, 10)
    path = tmp_path / "case.nii.gz"
    export_probabilities(
        _one_hot(label, 300), _record((3, 10, 10)), ExportSettings(), Destination(path=path)
    )
    assert _written(path).dtype == np.uint16
    assert np.array_equal(_written(path), label)


def test_probabilities_are_saved_with_the_properties(
    tmp_path: Path, export_probabilities: Callable[..., None]
) -> None:
    regions = ExportSettings(regions=(1, 2))
    path = tmp_path / "case.v1.nii.gz"
    probabilities = np.random.default_rng(0).random((2, 3, 4, 5)).astype(np.float32)
    export_probabilities(
        probabilities, _record((6, 8, 5)), regions, Destination(path=path, save_npz=True)
    )
    assert companion(path, ".npz") == tmp_path / "case.v1.npz"
    softmax = np.load(tmp_path / "case.v1.npz")["softmax"]
    assert softmax.shape == (2, 6, 8, 5) and softmax.dtype == np.float16
    assert load_pickle(tmp_path / "case.v1.pkl")["regions_class_order"] == [1, 2]


def test_postprocessing_is_applied_before_the_file_appears(tmp_path: Path) -> None:
    label = np.zeros((5, 5, 5), np.uint8)
    label[:3, :3, :3] = 1
    label[4, 4, 4] = 1
    rules = {"for_which_classes": [1], "min_valid_object_sizes": "None"}
    path = tmp_path / "case.nii.gz"
    export_label(
        label, _record((5, 5, 5)), ExportSettings(), Destination(path=path, postprocessing=rules)
    )
    assert _written(path).sum() == 27
    assert [p.name for p in tmp_path.iterdir()] == ["case.nii.gz"]


@pytest.mark.parametrize("permuted", [False, True])
def test_memory_of_an_export_does_not_grow_with_the_classes(
    tmp_path: Path, permuted: bool, export_probabilities: Callable[..., None]
) -> None:
    settings = ExportSettings(transpose_backward=(1, 2, 0) if permuted else (0, 1, 2))

    def peak(classes: int) -> int:
        probabilities = np.random.default_rng(0).random((classes, 16, 16, 16), np.float32)
        tracemalloc.start()
        export_probabilities(
            probabilities, _record((64, 64, 64)), settings, Destination(path=tmp_path / "a.nii.gz")
        )
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)  # compiles
    few, many = peak(2), peak(34)
    volume = 4 * 64**3
    assert many - few < volume  # 32 further classes cost less than one float32 volume
