from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore, load_npz

DATA = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)


@pytest.fixture
def store(tmp_path: Path) -> CaseStore:
    record = CaseRecord(
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
    store = CaseStore(tmp_path)
    store.write("b", DATA, record)
    store.write("a", DATA + 1, record)
    return store


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
    store.unpack("b")
    store.write("b", DATA * 2, store.record("b"))
    later = (store.folder / "b.npy").stat().st_mtime_ns + 10**9
    os.utime(store.folder / "b.npz", ns=(later, later))
    store.unpack("b")
    assert np.array_equal(store.load("b"), DATA * 2)


def test_a_truncated_npz_is_named(store: CaseStore) -> None:
    path = store.folder / "b.npz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"b\.npz cannot be read"):
        load_npz(path)
