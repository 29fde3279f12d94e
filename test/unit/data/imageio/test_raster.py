"""Pictures in every form that PNG, JPEG and BMP come in."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from nnunetlike.core.errors import DataError
from nnunetlike.data.imageio import format_of

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)
COLOUR = np.stack([GREY, GREY + 50, GREY + 100], axis=-1)


def image_of(path: Path) -> Any:
    image, geometry = format_of(path).read([path])
    assert image.dtype == np.float32 and geometry.spacing == (999.0, 1.0, 1.0)
    assert geometry.shape == image.shape[1:] and geometry.leading == "single"
    return image[:, 0]


def label_of(path: Path) -> Any:
    return format_of(path).read_label(path)[0][0]


def test_grey_is_one_channel(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(image_of(tmp_path / "a.png"), GREY[None])


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    values = GREY.astype(np.uint16) * 3000
    Image.fromarray(values).save(tmp_path / "a.png")
    assert np.array_equal(image_of(tmp_path / "a.png"), values[None])
    assert np.array_equal(label_of(tmp_path / "a.png"), values)


@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bits_of_colour_are_kept(tmp_path: Path, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65535, (4, 5, channels), np.uint16)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "a.png"))
    assert np.array_equal(image_of(tmp_path / "a.png"), np.moveaxis(values, -1, 0)[:3])


@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_colour_is_three_channels_of_one_file(tmp_path: Path, ending: str) -> None:
    Image.fromarray(COLOUR).save(tmp_path / f"a{ending}")
    assert np.array_equal(image_of(tmp_path / f"a{ending}"), np.moveaxis(COLOUR, -1, 0))


def test_alpha_is_left_out_and_a_note_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_alpha = np.concatenate([COLOUR, np.full((4, 5, 1), 7, np.uint8)], axis=-1)
    Image.fromarray(with_alpha).save(tmp_path / "a.png")
    Image.fromarray(with_alpha[..., 2:]).save(tmp_path / "b.png")
    with caplog.at_level(logging.INFO):
        assert np.array_equal(image_of(tmp_path / "a.png"), np.moveaxis(COLOUR, -1, 0))
        assert np.array_equal(image_of(tmp_path / "b.png"), COLOUR[None, ..., 2])
    assert "a.png: alpha is left out" in caplog.text


def palette(path: Path) -> np.ndarray:
    indices = GREY % 3
    picture = Image.fromarray(indices)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    picture.save(path)
    return indices


def test_a_palette_is_colours_in_an_image_and_indices_in_a_label(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    indices = palette(path)
    red, green, blue = image_of(path)
    assert np.array_equal(red, 255 * (indices == 1)) and not green.any()
    assert np.array_equal(blue, 255 * (indices == 2))
    assert np.array_equal(label_of(path), indices)


@pytest.mark.parametrize("ending", [".png", ".bmp"])
def test_one_bit_is_zero_and_one(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    Image.fromarray(GREY % 2 == 1).save(path)
    assert np.array_equal(label_of(path), GREY % 2) and label_of(path).dtype == np.uint8
    assert np.array_equal(image_of(path)[0], GREY % 2)


@pytest.mark.parametrize("bits", [2, 4])
def test_few_bits_of_grey_are_the_labels_stored(tmp_path: Path, bits: int) -> None:
    indices = GREY % 4
    picture = Image.fromarray(indices)
    picture.save(tmp_path / "a.png")
    with (tmp_path / "a.png").open("wb") as stream:
        stream.write(few_bit_png(indices, bits))
    assert np.array_equal(label_of(tmp_path / "a.png"), indices)


def few_bit_png(indices: np.ndarray, bits: int) -> bytes:
    """Return a grey PNG of 2 or 4 bits, which Pillow cannot write."""
    import struct
    import zlib

    height, width = indices.shape
    shifts = range(8 - bits, -1, -bits)
    rows = b""
    for row in indices:
        padded = np.pad(row, (0, -width % len(shifts))).reshape(-1, len(shifts))
        rows += b"\0" + bytes(
            sum(int(v) << s for v, s in zip(g, shifts, strict=True)) for g in padded
        )

    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def test_jpeg_is_an_image_and_never_a_label(tmp_path: Path) -> None:
    path = tmp_path / "a.JPG"
    Image.fromarray(COLOUR).save(path)
    assert image_of(path).shape == (3, 4, 5)
    with pytest.raises(DataError, match="JPEG changes the values"):
        label_of(path)


def test_jpeg_in_four_inks_becomes_three_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("CMYK", (5, 4)).save(path)
    assert image_of(path).shape == (3, 4, 5)


def test_pictures_that_ask_to_be_turned_are_taken_as_stored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(tmp_path / "a.jpg", exif=exif)
    with caplog.at_level(logging.INFO):
        assert image_of(tmp_path / "a.jpg").shape == (3, 4, 5)
    assert "Exif asks to turn it" in caplog.text


def test_a_grey_label_stored_as_colour_is_read_and_colours_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.stack([GREY] * 3, axis=-1)).save(tmp_path / "a.png")
    assert np.array_equal(label_of(tmp_path / "a.png"), GREY)
    Image.fromarray(COLOUR).save(tmp_path / "b.png")
    with pytest.raises(DataError, match="holds 20 colours; a label map holds one integer"):
        label_of(tmp_path / "b.png")


def test_what_a_picture_cannot_hold_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write = format_of(path).write_label
    _, geometry = format_of(path).read([_saved(tmp_path)])
    with pytest.raises(DataError, match="one slice and values 0 to 65535"):
        write(np.full((1, 4, 5), 70000), geometry, path)
    with pytest.raises(DataError, match=r"shape \(2, 4, 5\)"):
        write(np.zeros((2, 4, 5), np.uint8), geometry, path)
    assert not path.exists()


def _saved(folder: Path) -> Path:
    Image.fromarray(GREY).save(folder / "g.png")
    return folder / "g.png"
