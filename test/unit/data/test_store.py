"""Cases written in every form, read back whole and in part."""

from __future__ import annotations

import io
import os
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunetlike.core.errors import DataError
from nnunetlike.data import store as store_module
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import ARRAY_SUFFIXES, FORMS, SUFFIXES, CaseStore, Form, load_npz

DATA = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
RECORD = CaseRecord(
    original_size=(3, 4, 5),
    original_spacing=(1.0, 1.0, 1.0),
    image_files=(),
    label_file=None,
    itk_origin=(0.0, 0.0, 0.0),
    itk_spacing=(1.0, 1.0, 1.0),
    itk_direction=(1.0,) * 9,
    crop_box=((0, 3), (0, 4), (0, 5)),
    classes=(),
    size_after_cropping=(3, 4, 5),
)


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    store = CaseStore(tmp_path)
    store.write("b", DATA, RECORD)
    store.write("a", DATA + 1, RECORD)
    return store


def written(folder: Path, form: Form, data: np.ndarray = DATA) -> CaseStore:
    """Return a store with the case `b` in a form."""
    if form == "blosc2":
        pytest.importorskip("blosc2")
    store = CaseStore(folder, form, (4, 4, 4))
    store.write("b", data, RECORD)
    return store


def cut_short(store: CaseStore) -> Path:
    path = store.array_file("b")
    assert path is not None
    path.write_bytes(path.read_bytes()[:-40])
    return path


def test_numpy_reads_what_is_written(store: CaseStore) -> None:
    with np.load(store.folder / "b.npz") as archive:
        assert np.array_equal(archive["data"], DATA) and archive["data"].dtype == np.float32


def test_only_complete_cases_count(store: CaseStore) -> None:
    assert store.case_ids() == ["a", "b"]
    (store.folder / "a.pkl").unlink()
    assert store.case_ids() == ["b"] and not store.holds("a") and store.holds("b")


def test_an_unpacked_case_is_memory_mapped_and_read_only(store: CaseStore) -> None:
    store.unpack("b")
    found = store.load("b")
    assert isinstance(found, np.memmap) and np.array_equal(found, DATA)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0, 0, 0] = 1
    assert not isinstance(store.load("b", unpacked=False), np.memmap)


def test_a_stale_unpacked_case_is_made_anew(store: CaseStore) -> None:
    np.save(store.folder / "b.npy", DATA * 2)
    os.utime(store.folder / "b.npy", (1, 1))
    store.unpack("b")
    assert np.array_equal(store.load("b"), DATA)


def test_a_damaged_npz_is_read_right_or_named_whichever_bit_it_is(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    store_module.save_npz(path, {"data": DATA[:, :2, :3, :4]})
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        path.write_bytes(_flipped(content, bit))
        named, found = "", None
        try:
            found = load_npz(path)
        except DataError as error:
            named = str(error)
        assert "c.npz cannot be read" in named or np.array_equal(found, DATA[:, :2, :3, :4])


@given(seed=st.integers(0, 2**32 - 1), flips=st.integers(2, 4))
@settings(deadline=None, max_examples=100)
def test_an_npy_with_a_damaged_header_is_named_if_it_cannot_be_read(seed: int, flips: int) -> None:
    """Its values carry no checksum, so a header that still makes sense is believed."""
    bits = np.random.default_rng(seed).integers(8 * 128, size=flips)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.npy"
        np.save(path, DATA)
        content = path.read_bytes()
        for bit in bits:
            content = _flipped(content, int(bit))
        path.write_bytes(content)
        named, found = "", None
        try:
            found = store_module.map_npy(path)
        except DataError as error:
            named = str(error)
        assert "c.npy cannot be read" in named or isinstance(found, np.ndarray)


def _flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz_files_of_numpy_are_read(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path / "c.npz", data=DATA)
    np.testing.assert_array_equal(load_npz(tmp_path / "c.npz"), DATA)


def test_numpy_reads_an_npz_of_ours_which_is_deflated(tmp_path: Path) -> None:
    store_module.save_npz(tmp_path / "c.npz", {"data": np.zeros((4, 50, 50), np.float32)})
    assert (tmp_path / "c.npz").stat().st_size < 4000
    assert not np.load(tmp_path / "c.npz")["data"].any()


@pytest.mark.parametrize("form", FORMS)
def test_slices_are_those_of_the_whole_case(tmp_path: Path, form: Form) -> None:
    written(tmp_path, form)
    for start, stop in ((0, 1), (1, 3), (0, len(DATA[0]))):
        found = CaseStore(tmp_path).load_slices("b", start, stop)
        assert np.array_equal(found, DATA[:, start:stop])


@pytest.mark.parametrize("array", [DATA[..., 0].T, np.asfortranarray(DATA), DATA.astype(">f8")])
def test_arrays_of_other_orders_are_read(tmp_path: Path, array: np.ndarray) -> None:
    np.savez_compressed(tmp_path / "c.npz", data=array)
    found, part = load_npz(tmp_path / "c.npz"), load_npz(tmp_path / "c.npz", part=slice(1, 2))
    assert np.array_equal(found, array) and found.dtype == array.dtype
    assert np.array_equal(part, array[:, 1:2])


def test_a_packed_array_that_another_follows_in_its_place_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        content = io.BytesIO()
        np.save(content, DATA)
        archive.writestr("data.npy", content.getvalue() + b"more")
    with pytest.raises(DataError, match="it is said to hold float32 of shape"):
        load_npz(tmp_path / "c.npz")


def test_an_npz_written_in_parts_holds_the_array(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((3, 4, 5)).astype(np.float16)
    store_module.save_npz_in_parts(tmp_path / "a.npz", "x", array.shape, np.float16, iter(array))
    with np.load(tmp_path / "a.npz") as found:
        assert found["x"].dtype == np.float16 and np.array_equal(found["x"], array)


def test_a_truncated_npz_is_named(store: CaseStore) -> None:
    path = store.folder / "b.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"b\.npz cannot be read"):
        load_npz(path)


# every form


@pytest.mark.parametrize("form", FORMS)
def test_a_case_is_read_in_the_form_it_has(tmp_path: Path, form: Form) -> None:
    written(tmp_path, form)
    store = CaseStore(tmp_path)  # which would write another
    assert store.case_ids() == ["b"] and store.holds("b") and store.form_of("b") == form
    assert np.array_equal(store.load("b"), DATA)
    assert store.is_unpacked("b") == (form != "npz")
    store.unpack("b")
    assert np.array_equal(store.open("b")[:, 1:3, 2:], DATA[:, 1:3, 2:])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("before", FORMS)
def test_a_case_is_never_there_in_two_forms(tmp_path: Path, before: Form, form: Form) -> None:
    written(tmp_path, before, DATA + 1).unpack("b")
    written(tmp_path, form)
    assert {p.suffix for p in tmp_path.glob("b.*")} == {SUFFIXES[form], ".pkl"}
    assert np.array_equal(CaseStore(tmp_path).load("b"), DATA)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fails", ["save_pickle", "atomic_path"])
def test_a_half_written_case_counts_for_none(
    tmp_path: Path, form: Form, fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, "npy", DATA + 1)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    module = store_module
    if form == "blosc2" and fails == "atomic_path":
        module = pytest.importorskip("nnunetlike.data.bricks")
    monkeypatch.setattr(module, fails, die)
    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, form)
    assert CaseStore(tmp_path).case_ids() == [] and not CaseStore(tmp_path).holds("b")


@pytest.mark.parametrize("form", FORMS)
def test_a_truncated_array_ends_in_an_error_that_names_it(tmp_path: Path, form: Form) -> None:
    store = written(tmp_path, form, np.random.default_rng(0).normal(size=(2, 9, 9, 9)))
    path = cut_short(store)
    with pytest.raises(DataError, match=rf"b\{path.suffix} cannot be read \(.+delete it and run"):
        store.load("b")


@pytest.mark.parametrize("suffix", ARRAY_SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"not an array of any kind, but longer than a header"])
def test_a_file_that_is_no_array_ends_in_an_error_that_names_it(
    store: CaseStore, suffix: str, content: bytes
) -> None:
    (store.folder / f"c{suffix}").write_bytes(content)
    if suffix == ".b2nd":
        pytest.importorskip("blosc2")
    with pytest.raises(DataError, match=rf"c\{suffix} cannot be read"):
        store.load("c")


def test_a_missing_case_is_named(store: CaseStore) -> None:
    with pytest.raises(DataError, match=r"c\.npz does not exist"):
        store.load("c")


def test_a_folder_may_mix_forms(tmp_path: Path) -> None:
    for form in FORMS:
        if form == "blosc2":
            pytest.importorskip("blosc2")
        CaseStore(tmp_path, form).write(form, DATA, RECORD)
    store = CaseStore(tmp_path)
    assert store.case_ids() == sorted(FORMS)
    assert all(np.array_equal(store.load(case), DATA) for case in FORMS)
    assert [store.form_of(case) for case in FORMS] == list(FORMS)


def test_v1_finds_and_reads_what_is_stored_as_npz(store: CaseStore) -> None:
    """As nnU-Net v1 (load_dataset, DataLoader3D): npz files make the list, then npy or `data`."""
    ids = sorted(p.name[:-4] for p in store.folder.iterdir() if p.name.endswith(".npz"))
    assert ids == ["a", "b"]
    with (store.folder / "b.pkl").open("rb") as stream:
        assert pickle.load(stream)["size_after_cropping"] == (3, 4, 5)
    store.unpack("b")
    assert np.array_equal(np.load(store.folder / "b.npy", "r"), DATA)


# 16 bits


def test_labels_stay_exact_in_16_bits_and_images_within_their_precision(tmp_path: Path) -> None:
    data = np.random.default_rng(0).normal(0, 3, (2, 9, 16, 16)).astype(np.float32)
    data[1] = np.arange(data[1].size).reshape(data[1].shape) % 2050 - 1
    found = written(tmp_path, "fp16", data).load("b")
    assert isinstance(found, np.memmap) and found.dtype == np.float16
    assert np.array_equal(found[1], data[1])
    np.testing.assert_allclose(found[0], data[0], rtol=2**-11, atol=2**-24)


@pytest.mark.parametrize(
    ("place", "value", "what"), [(1, 2049, "label 2049"), (0, -1e5, r"image value 100000")]
)
def test_what_16_bits_do_not_hold_is_refused(
    tmp_path: Path, place: int, value: float, what: str
) -> None:
    data = DATA.copy()
    data[place, 0, 0, 0] = value
    with pytest.raises(DataError, match=rf"b: its {what} does not fit 16 bits.+--store"):
        written(tmp_path, "fp16", data)


# any array, any window


@st.composite
def windows(draw: st.DrawFn) -> tuple[np.ndarray, tuple[slice, ...], tuple[int, ...]]:
    """An array (C + 1, D, H, W) of float16's values, a window of it and a patch size."""
    shape = (draw(st.integers(2, 4)), *(draw(st.integers(1, 24)) for _ in range(3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    data = rng.normal(size=shape).astype(np.float16).astype(np.float32)
    data[-1] = rng.integers(-1, 3, shape[1:])
    bounds = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape[1:]]
    window = (slice(None), *(slice(low, high) for low, high in bounds))
    patch = tuple(draw(st.integers(1, 30)) for _ in range(draw(st.integers(2, 3))))
    return data, window, patch


@pytest.mark.parametrize("form", FORMS)
@given(case=windows())
@settings(max_examples=40, deadline=None)
def test_any_window_is_that_of_the_written_array(
    form: Form, case: tuple[np.ndarray, tuple[slice, ...], tuple[int, ...]]
) -> None:
    if form == "blosc2":
        pytest.importorskip("blosc2")
    data, window, patch = case
    with tempfile.TemporaryDirectory() as folder:
        store = CaseStore(Path(folder), form, patch)
        store.write("b", data, replace(RECORD))
        assert np.array_equal(store.open("b")[window], data[window])
        assert np.array_equal(store.load("b"), data)
