"""Checkpoints in v1's layout, both ways, without executing what they hold."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.core.errors import DataError, ResourceError
from nnunetlike.core.serialization import load_pickle, save_pickle
from nnunetlike.networks import model_files
from nnunetlike.networks.model_files import (
    describe_network,
    find_checkpoint,
    information_file,
    load_content,
    load_model_file,
    load_to_continue,
    network_from_description,
    save_model_file,
)
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec
from nnunetlike.networks.v1_weights import state_dict_to_v1
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import plans_to_v1


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
    with pytest.raises(DataError, match=r"it asks for \w+\.mkdir.*refused") as caught:
        load_content(path)
    assert "weights_only" not in str(caught.value)
    assert not trap.exists()


class ScalarOfObject:
    """A numpy number whose bytes are the address of an object."""

    def __reduce__(self) -> tuple[Any, ...]:
        scalar = np.float64(0).__reduce__()[0]
        return scalar, (np.dtype("O"), b"\x41" * 8)


def test_bytes_of_a_checkpoint_are_never_taken_for_addresses(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "epoch": ScalarOfObject()}, tmp_path / "a.model")
    with pytest.raises(DataError, match="cannot be read as a checkpoint"):
        load_content(tmp_path / "a.model")


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
    with pytest.raises(ResourceError, match=r"a\.model needs 0\.0 MiB and .* free") as caught:
        save_model_file(path, {"epoch": 2, "weights": torch.ones(5000)}, {"name": "x"})
    assert caught.value.exit_code == 4
    assert load_content(path)["epoch"] == 1
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


@pytest.fixture
def save(tmp_path: Path, tiny_plans: Callable[[int], Plans]) -> Callable[[str, int], Path]:
    """Saves a checkpoint of a name after some epochs."""
    return lambda name, epoch: _save(tmp_path, name, epoch, tiny_plans(2))


def _save(folder: Path, name: str, epoch: int, plans: Plans) -> Path:
    spec, task = UNetSpec.tiny(2)
    weights = state_dict_to_v1(spec.build(task))
    info = {
        "init": ("p", 0, "m", "d", True, 0, True, False, False),
        "plans": plans_to_v1(plans),
        "network": describe_network(spec, task),
    }
    save_model_file(folder / name, {"epoch": epoch, "state_dict": weights}, info)
    return folder / name


def test_an_unfinished_training_goes_on_from_latest_over_an_old_final(
    tmp_path: Path, save: Callable[[str, int], Path]
) -> None:
    save("model_final_checkpoint.model", 9)
    assert load_to_continue(tmp_path).epoch == 9
    save("model_latest.model", 4)
    assert load_to_continue(tmp_path).epoch == 4


def test_a_truncated_latest_is_named_and_the_one_before_it_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, save: Callable[[str, int], Path]
) -> None:
    latest = save("model_latest.model", 4)
    latest.write_bytes(latest.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"model_latest\.model cannot be read .* train again"):
        load_to_continue(tmp_path)
    save("model_best.model", 3)
    assert load_to_continue(tmp_path).path.name == "model_best.model"
    (line,) = caplog.messages
    assert "model_latest.model cannot be read as a checkpoint" in line
    assert "going on from model_best.model, after 3 epochs" in line


def test_a_save_cut_off_between_its_two_files_leaves_the_old_checkpoint_whole(
    tmp_path: Path, save: Callable[[str, int], Path]
) -> None:
    path = save("model_latest.model", 4)
    before = load_model_file(path)
    save_pickle({"network": "of another run"}, information_file(path))
    after = load_model_file(path)
    assert after.info == before.info
    assert len(list(after.build().parameters())) > 0


def test_the_file_beside_a_checkpoint_is_what_v1_reads(
    tmp_path: Path, save: Callable[[str, int], Path]
) -> None:
    path = save("model_latest.model", 4)
    assert list(load_pickle(information_file(path))) == ["init", "plans", "network"]


def test_a_missing_checkpoint_is_answered_with_those_that_exist(tmp_path: Path) -> None:
    _touch(tmp_path, "model_best.model")
    with pytest.raises(DataError, match=r"found: model_best\.model"):
        find_checkpoint(tmp_path, "model_final_checkpoint")
