"""TIFF pictures and stacks, and where their spacing comes from."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nnunetlike.core.errors import DataError
from nnunetlike.data.imageio import format_of

STACK = np.arange(60, dtype=np.uint16).reshape(3, 4, 5)


def read(path: Path) -> Any:
    return format_of(path).read([path])


def test_pages_without_spacing_are_1_mm_apart_and_a_warning_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a_0000.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack")
    with caplog.at_level(logging.INFO):
        image, geometry = read(path)
    assert np.array_equal(image[0], STACK) and geometry.spacing == (1, 1, 1)
    assert "names no spacing; 1 mm is taken" in caplog.text and "a.json" in caplog.text


@pytest.mark.parametrize("name", ["a.json", "a_0000.json"])
def test_the_spacing_of_a_json_file_beside_it_comes_first(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps({"spacing": [4, 2, 1.5]}))
    tifffile.imwrite(
        tmp_path / "a_0000.tif", STACK, imagej=True, resolution=(1, 1),
        metadata={"axes": "ZYX", "spacing": 9.0, "unit": "mm"},
    )  # fmt: skip
    assert read(tmp_path / "a_0000.tif")[1].spacing == (4.0, 2.0, 1.5)


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_the_spacing_of_imagej_is_taken_where_it_has_a_unit(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, STACK, imagej=True, resolution=(1 / 0.5, 1 / 0.25),
        metadata={"axes": "ZYX", "spacing": 3.0, "unit": unit},
    )  # fmt: skip
    assert np.allclose(read(path)[1].spacing, (3e-3, 0.25e-3, 0.5e-3))


def test_the_spacing_of_imagej_without_a_unit_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    metadata = {"axes": "ZYX", "spacing": 3.0}
    tifffile.imwrite(path, STACK, imagej=True, resolution=(2, 2), metadata=metadata)
    assert read(path)[1].spacing == (1, 1, 1)


def test_the_spacing_of_ome_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    sizes = {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.25, "PhysicalSizeZ": 3.0}
    tifffile.imwrite(path, STACK, ome=True, metadata={"axes": "ZYX", **sizes})
    assert np.allclose(read(path)[1].spacing, (3e-3, 0.25e-3, 0.5e-3))


@pytest.mark.parametrize("content", ["[1, 1, 1]", '{"spacing": [1, 1]}', '{"spacing": [0, 1, 1]}'])
def test_a_wrong_json_file_is_refused_with_the_form_it_needs(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    tifffile.imwrite(tmp_path / "a.tif", STACK, photometric="minisblack")
    with pytest.raises(DataError, match=r"a\.json must hold"):
        read(tmp_path / "a.tif")


def test_one_page_is_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0])
    image, geometry = read(path)
    assert np.array_equal(image[0, 0], STACK[0])
    assert geometry.spacing == (999, 1, 1) and geometry.leading == "single"


def test_colour_and_imagej_channels_are_channels_and_alpha_is_not(tmp_path: Path) -> None:
    colour = np.arange(80, dtype=np.uint8).reshape(4, 5, 4)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, colour, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read(path)[0][:, 0], np.moveaxis(colour, -1, 0)[:3])
    volume = np.arange(120, dtype=np.uint8).reshape(3, 2, 4, 5)
    tifffile.imwrite(path, volume, imagej=True, metadata={"axes": "ZCYX"})
    assert np.array_equal(read(path)[0], volume.swapaxes(0, 1))


def test_more_axes_than_space_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    volume = np.zeros((2, 3, 4, 5), np.uint8)
    tifffile.imwrite(path, volume, imagej=True, metadata={"axes": "TZYX"})
    with pytest.raises(DataError, match="has the axes TZYX"):
        read(path)


def test_labels_of_fractions_or_several_channels_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((4, 5), 0.5, np.float32))
    with pytest.raises(DataError, match=r"found 0\.5"):
        format_of(path).read_label(path)
    tifffile.imwrite(path, np.zeros((4, 5, 3), np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="3 channels; a label map has one"):
        format_of(path).read_label(path)


def test_values_that_tiff_does_not_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK, photometric="minisblack")
    _, geometry = read(path)
    with pytest.raises(DataError, match="values -1 to -1"):
        format_of(path).write_label(np.full((3, 4, 5), -1), geometry, path)
