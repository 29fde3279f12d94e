"""Files that survive a killed process and never execute what they hold.

Every writer here writes under a temporary name in the same folder and renames. Pickles are written
from plain Python types and read by an unpickler that knows containers and numpy arrays only.
"""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from nnunetlike.core.errors import DataError

PLAIN_KINDS = "biufcSU"
"""Kinds of numpy's types whose bytes are values, not addresses."""

NOTHING_LEFT = 2**14
"""Free bytes below which a file that was just written may have been cut short."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it when the block ends without error.

    The temporary name keeps the suffixes of `path`, so libraries that choose a format by suffix
    work. A block that raises leaves `path` as it was and removes the temporary file. An error of
    the system, such as a full disk, gets `path` as its file name. Where nothing is left of the disk
    the block fails, even if the library that wrote the file did not notice (ITK's NIfTI).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        yield temporary
        _require_room(path)
        temporary.replace(path)
    except OSError as error:
        if error.filename is None or str(error.filename) == str(temporary):
            error.filename, error.filename2 = str(path), None
        raise
    except RuntimeError as error:  # how ITK tells
        _require_room(path, cause=error)
        raise
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _require_room(path: Path, cause: Exception | None = None) -> None:
    if shutil.disk_usage(path.parent).free < NOTHING_LEFT:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from cause


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def to_plain(value: Any, *, keep_arrays: bool = False) -> Any:
    """Return `value` from plain Python types (dict, list, tuple, str, int, float, bool).

    Args:
        value: anything made of mappings, sequences, numpy values and paths.
        keep_arrays: leave numpy arrays as they are, else they become (nested) lists.
    """
    if isinstance(value, np.ndarray):
        return value if keep_arrays else value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        kind = OrderedDict if isinstance(value, OrderedDict) else dict
        return kind(
            (to_plain(key), to_plain(item, keep_arrays=keep_arrays)) for key, item in value.items()
        )
    if isinstance(value, (list, tuple)):
        return type(value)(to_plain(item, keep_arrays=keep_arrays) for item in value)
    if isinstance(value, os.PathLike):
        return str(value)
    return value


def save_json(value: Any, path: Path, *, sort_keys: bool = False) -> None:
    """Write `value` as indented JSON; numpy values become numbers and lists, NaN stays `NaN`."""
    text = json.dumps(to_plain(value), indent=4, sort_keys=sort_keys)
    write_text(path, text + "\n")


def load_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from None


def save_pickle(value: Any, path: Path) -> None:
    """Pickle `value` after reducing it to plain types; arrays stay arrays."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(pickle_bytes(value))


def pickle_bytes(value: Any) -> bytes:
    """Return what `save_pickle` writes."""
    return pickle.dumps(to_plain(value, keep_arrays=True), protocol=4)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r} is not allowed")
    return text.encode("latin1")


class _Array:
    """Stands for `numpy.ndarray` in pickles, which may name it but not call it.

    Called with a buffer it would take bytes of the file for addresses of objects.
    """


def plain_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return `dtype` if its values are numbers or texts.

    Raises:
        pickle.UnpicklingError: its values are objects or structures, whose bytes may be addresses.
    """
    if dtype.kind not in PLAIN_KINDS:
        raise pickle.UnpicklingError(f"it asks for an array of {dtype}")
    return dtype


def _dtype(code: str, align: bool = False, copy: bool = False) -> np.dtype[Any]:
    if not isinstance(code, str):
        raise pickle.UnpicklingError("it asks for an array of structures")
    dtype = np.dtype(code, align, copy)
    if dtype.kind == "O":  # numpy's own, which what follows in the pickle cannot change: no bytes
        return np.dtype("O")
    return plain_dtype(dtype)


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    core_package = "numpy.core" if np.__version__.startswith("1.") else "numpy._core"
    multiarray = importlib.import_module(f"{core_package}.multiarray")
    numeric = importlib.import_module(f"{core_package}.numeric")

    def reconstruct(kind: type, shape: tuple[int, ...], code: bytes) -> Any:
        """Return an empty array, which what follows in the pickle fills."""
        if kind is not _Array:
            raise pickle.UnpicklingError(f"it asks for an array of type {kind}")
        return multiarray._reconstruct(np.ndarray, shape, code)

    known: dict[tuple[str, str], Any] = {
        ("collections", "OrderedDict"): OrderedDict,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _dtype,
        ("_codecs", "encode"): _latin1,
        ("builtins", "set"): set,
        ("builtins", "complex"): complex,
        ("builtins", "slice"): slice,
    }
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray", "_reconstruct"] = reconstruct
        known[f"{core}.multiarray", "scalar"] = multiarray.scalar
        known[f"{core}.numeric", "_frombuffer"] = numeric._frombuffer
    return known


class RestrictedUnpickler(pickle.Unpickler):
    """Reads containers, numbers, strings and numpy arrays; refuses everything else by name."""

    _known = _allowed()

    def find_class(self, module: str, name: str) -> Any:
        """Return the allowed class or function, or refuse."""
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def load_pickle(path: Path) -> Any:
    """Return the content of a pickle of plain types and numpy arrays.

    Raises:
        DataError: the file is missing, truncated, or asks for anything else (it is not executed).
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    return unpickle_bytes(content, str(path))


def unpickle_bytes(content: bytes, name: str) -> Any:
    """Return the content of a pickle of plain types and numpy arrays.

    Args:
        content: the pickle.
        name: what to call it when it is damaged.

    Raises:
        DataError: it is truncated, or asks for anything else (it is not executed).
    """
    try:
        return RestrictedUnpickler(io.BytesIO(content)).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
    ) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{name} cannot be read as a pickle of plain types: {reason}. It is damaged or was not "
            "written by an nnU-Net."
        ) from None


def save_pickle_with_twin(value: Any, path: Path) -> None:
    """Write `path` (a small pickle) and a readable twin with the suffix `.json` beside it."""
    save_pickle(value, path)
    save_json(value, path.with_suffix(".json"))
