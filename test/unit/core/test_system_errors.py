from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
import torch

from nnunetlike.core.errors import DataError, NnunetlikeError, ResourceError, UsageError
from nnunetlike.core.serialization import atomic_path
from nnunetlike.core.system_errors import existing_parent, explained, is_out_of_memory


def os_error(number: int, path: Path) -> OSError:
    return OSError(number, "in the system's words", str(path))


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.ENOSPC, ResourceError, "the disk is full"),
        (errno.EDQUOT, ResourceError, "the disk is full"),
        (errno.EMFILE, ResourceError, "ulimit -n"),
        (errno.EFBIG, ResourceError, "ulimit -f"),
        (errno.EIO, ResourceError, "the disk failed"),
        (errno.EAGAIN, ResourceError, "no more processes"),
        (errno.ENOMEM, ResourceError, "memory ran out"),
        (errno.EACCES, UsageError, "permission denied"),
        (errno.EROFS, UsageError, "permission denied"),
        (errno.ENOENT, DataError, "system's words"),
    ],
)
def test_errors_of_the_system_get_words_a_path_and_a_code(
    tmp_path: Path, number: int, kind: type[NnunetlikeError], words: str
) -> None:
    found = explained(os_error(number, tmp_path / "not" / "there.npz"))
    assert type(found) is kind and words in str(found)
    if number not in (errno.EAGAIN, errno.ENOMEM):
        assert str(tmp_path / "not" / "there.npz") in str(found)


def test_a_full_disk_tells_what_is_free(tmp_path: Path) -> None:
    assert "GiB free" in str(explained(os_error(errno.ENOSPC, tmp_path / "x")))


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory. Tried")],
)
def test_lack_of_memory_is_recognised(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert type(explained(error)) is ResourceError


def test_an_allocation_that_torch_or_numpy_refuses_is_lack_of_memory() -> None:
    with pytest.raises(RuntimeError) as of_torch:
        torch.empty(10**14)
    with pytest.raises(MemoryError) as of_numpy:
        np.empty(10**15)
    assert is_out_of_memory(of_torch.value) and is_out_of_memory(of_numpy.value)
    assert "Unable to allocate 7.11 PiB" in str(explained(of_numpy.value))


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("shapes differ"), OSError("odd")])
def test_other_errors_are_not_explained_away(error: Exception) -> None:
    assert explained(error) is None


def test_a_full_disk_in_the_middle_of_a_file_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match="No space left") as raised,
        atomic_path(tmp_path / "case.npz"),
        Path("/dev/full").open("wb") as stream,
    ):
        stream.write(b"x" * 10**6)
    assert raised.value.filename == str(tmp_path / "case.npz")
    assert str(tmp_path / "case.npz") in str(explained(raised.value))


def test_the_parent_that_exists_is_found(tmp_path: Path) -> None:
    assert existing_parent(tmp_path / "a" / "b") == tmp_path
