"""Files are whole or absent, and never execute what they hold."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import (
    atomic_path,
    load_json,
    load_pickle,
    save_json,
    save_pickle,
    save_pickle_with_twin,
    to_plain,
)


class Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


def test_a_hostile_pickle_is_refused_by_name_and_not_executed(tmp_path: Path) -> None:
    trace = tmp_path / "executed"
    path = tmp_path / "plans.pkl"
    path.write_bytes(pickle.dumps({"a": Hostile(f"touch {trace}")}))
    with pytest.raises(DataError, match=r"posix\.system"):
        load_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_types_and_arrays_are_read_under_every_protocol(
    tmp_path: Path, protocol: int
) -> None:
    value = OrderedDict(a=[1, 2.5, "x", None, True], b=(np.arange(3), np.float32(0.5)))
    path = tmp_path / "old.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    found = load_pickle(path)
    assert list(found) == ["a", "b"] and found["a"] == value["a"]
    assert np.array_equal(found["b"][0], np.arange(3)) and found["b"][1] == np.float32(0.5)


def test_a_truncated_pickle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "splits.pkl"
    path.write_bytes(pickle.dumps(list(range(1000)))[:-50])
    with pytest.raises(DataError, match=r"splits\.pkl"):
        load_pickle(path)


def test_what_is_written_holds_plain_python_types(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    save_pickle({np.int64(1): [np.float64(0.5), np.bool_(True), tmp_path]}, path)
    assert b"numpy" not in path.read_bytes()
    assert load_pickle(path) == {1: [0.5, True, str(tmp_path)]}


def test_large_arrays_stay_arrays(tmp_path: Path) -> None:
    save_pickle({"locations": np.ones((5, 3), np.int64)}, tmp_path / "x.pkl")
    assert load_pickle(tmp_path / "x.pkl")["locations"].dtype == np.int64


def test_the_twin_says_the_same_as_the_pickle(tmp_path: Path) -> None:
    save_pickle_with_twin({"patch": np.array([8, 16])}, tmp_path / "plans.pkl")
    assert load_json(tmp_path / "plans.json") == {"patch": [8, 16]}


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    save_json({"a": 1}, path)

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert load_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_json_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json"):
        load_json(tmp_path / "bad.json")
    with pytest.raises(DataError, match="does not exist"):
        load_json(tmp_path / "none.json")


def test_to_plain_keeps_the_kind_of_containers() -> None:
    plain = to_plain(OrderedDict(a=(np.int64(1), [np.float32(2)])))
    assert isinstance(plain, OrderedDict) and plain == {"a": (1, [2.0])}
    assert type(plain["a"][0]) is int


class Called:
    """Pickled, it is a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> object:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", ["O", "V8", "O,f8"])
def test_bytes_are_never_taken_for_addresses_of_objects(
    tmp_path: Path, protocol: int, kind: str
) -> None:
    call = Called(np.ndarray, (1,), np.dtype(kind), b"\x41" * 64)
    (tmp_path / "plans.pkl").write_bytes(pickle.dumps(call, protocol))
    with pytest.raises(DataError, match=r"asks for an array of|_Array|arguments"):
        load_pickle(tmp_path / "plans.pkl")


def test_arrays_of_lists_stay_arrays(tmp_path: Path) -> None:
    values = np.array([[1, 2], [3]], dtype=object)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(values))
    assert load_pickle(tmp_path / "x.pkl").tolist() == [[1, 2], [3]]


class TypeOfObjects:
    """The type of objects, whose state says that it is a type of values."""

    def __reduce__(self) -> object:
        return np.dtype, ("O8", False, True), (3, "|", None, None, None, -1, -1, 0)


class FilledWithBytes:
    """An array of objects whose state says that its bytes are values."""

    def __init__(self, dtype: object) -> None:
        self.dtype = dtype

    def __reduce__(self) -> object:
        function, arguments, _ = np.zeros(1).__reduce__()
        return function, arguments, (1, (1,), self.dtype, False, b"\x41" * 8)


def test_a_type_of_objects_cannot_be_made_one_of_values(tmp_path: Path) -> None:
    (tmp_path / "type.pkl").write_bytes(pickle.dumps(TypeOfObjects()))
    assert load_pickle(tmp_path / "type.pkl").flags == np.dtype("O").flags
    for dtype in (np.dtype("O"), TypeOfObjects()):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(FilledWithBytes(dtype)))
        with pytest.raises(DataError, match="cannot be read"):
            load_pickle(tmp_path / "x.pkl")


def test_an_array_that_takes_bytes_from_elsewhere_is_not_made(tmp_path: Path) -> None:
    call = Called(np.ndarray, (9,), np.dtype("f8"), b"\x41" * 72)
    (tmp_path / "plans.pkl").write_bytes(pickle.dumps(call))
    with pytest.raises(DataError, match="cannot be read"):
        load_pickle(tmp_path / "plans.pkl")


def test_texts_and_numbers_of_all_sizes_stay_arrays(tmp_path: Path) -> None:
    values = [np.arange(3).astype(kind) for kind in ("?", "i1", "u8", "f2", "c16", "S3", "U2")]
    values += [np.arange(3).astype(kind) for kind in (">i4", ">f8")]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(values))
    for before, after in zip(values, load_pickle(tmp_path / "x.pkl"), strict=True):
        assert (before.dtype.kind, before.itemsize) == (after.dtype.kind, after.itemsize)
        assert (before == after).all()
