"""Checkpoints in v1's layout, both ways, without executing what they hold."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.core.errors import DataError
from nnunetlike.networks import model_files
from nnunetlike.networks.model_files import (
    checkpoint_to_continue,
    describe_network,
    find_checkpoint,
    information_file,
    load_content,
    load_model_file,
    network_from_description,
    save_model_file,
)
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec
from nnunetlike.networks.v1_weights import state_dict_to_v1


class Malicious:
    """What an attacker would put into a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()
        information_file(folder / name).touch()


@pytest.mark.parametrize("kind", [UNetSpec, UNetPlusPlusSpec])
@pytest.mark.parametrize("dimension", [2, 3])
def test_a_description_builds_the_same_network_again(kind: Any, dimension: int) -> None:
    spec, task = kind.tiny(dimension)
    description = pickle.loads(pickle.dumps(describe_network(spec, task)))
    again = network_from_description(description)
    shapes = {n: tuple(v.shape) for n, v in state_dict_to_v1(spec.build(task)).items()}
    assert {n: tuple(v.shape) for n, v in state_dict_to_v1(again).items()} == shapes


def test_numpy_numbers_of_any_era_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.model"
    numbers = [np.float32(0.5), np.float64(0.25), np.int64(3)]
    torch.save({"numbers": numbers, "weights": torch.ones(2)}, path)
    content = load_content(path)
    assert content["numbers"] == [0.5, 0.25, 3]


def test_code_in_a_checkpoint_is_refused_and_not_executed(tmp_path: Path) -> None:
    path, trap = tmp_path / "a.model", tmp_path / "trap"
    torch.save({"state_dict": {}, "epoch": Malicious(trap)}, path)
    with pytest.raises(DataError, match="refused"):
        load_content(path)
    assert not trap.exists()


def test_code_beside_a_checkpoint_is_refused_and_not_executed(tmp_path: Path) -> None:
    path, trap = tmp_path / "a.model", tmp_path / "trap"
    torch.save({"state_dict": {}, "epoch": 1}, path)
    information_file(path).write_bytes(pickle.dumps(Malicious(trap)))
    with pytest.raises(DataError, match="cannot be read"):
        load_model_file(path)
    assert not trap.exists()


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.model"
    torch.save({"weights": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match=r"a\.model cannot be read"):
        load_content(path)


def test_reading_leaves_torchs_list_of_safe_globals_as_it_was(tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    torch.save({"n": np.float32(1)}, tmp_path / "a.model")
    load_content(tmp_path / "a.model")
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.model"
    save_model_file(path, {"epoch": 1}, {"name": "x"})

    def fail(content: Any, target: Any) -> None:
        target.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(model_files.torch, "save", fail)
    with pytest.raises(OSError, match="space"):
        save_model_file(path, {"epoch": 2}, {"name": "x"})
    assert load_content(path) == {"epoch": 1}
    assert not list(tmp_path.glob(".tmp*"))


def test_module_prefix_of_data_parallel_training_is_removed() -> None:
    weights = OrderedDict({"module.a.weight": torch.ones(1), "b": torch.ones(1)})
    assert list(model_files.without_module(weights)) == ["a.weight", "b"]


def test_final_comes_before_latest_and_best(tmp_path: Path) -> None:
    _touch(tmp_path, "model_best.model")
    assert find_checkpoint(tmp_path).name == "model_best.model"
    _touch(tmp_path, "model_latest.model")
    assert find_checkpoint(tmp_path).name == "model_latest.model"
    _touch(tmp_path, "model_final_checkpoint.model")
    assert find_checkpoint(tmp_path).name == "model_final_checkpoint.model"
    assert find_checkpoint(tmp_path, "model_best").name == "model_best.model"


def test_an_unfinished_training_goes_on_from_latest_over_an_old_final(tmp_path: Path) -> None:
    _touch(tmp_path, "model_final_checkpoint.model")
    assert checkpoint_to_continue(tmp_path).name == "model_final_checkpoint.model"
    _touch(tmp_path, "model_latest.model")
    assert checkpoint_to_continue(tmp_path).name == "model_latest.model"


def test_a_missing_checkpoint_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    _touch(tmp_path, "model_best.model")
    with pytest.raises(DataError, match=r"found: model_best\.model"):
        find_checkpoint(tmp_path, "model_final_checkpoint")
