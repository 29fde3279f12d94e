from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.core.serialization import load_pickle, save_pickle
from nnunetlike.networks.model_files import load_content, load_model_file, save_model_file
from nnunetlike.run.change_trainer_class import main

DDP_PLACE = "3d_fullres/Task901_Tiny/nnUNetTrainerV2_DDP__nnUNetPlansv2.1"
FINAL = "model_final_checkpoint.model"


def make_ddp(model: Path, name: str = FINAL) -> None:
    """Give a checkpoint the eleven arguments of v1's DDP trainer."""
    path = model / "fold_0" / name
    before = load_model_file(path)
    info = dict(before.info)
    plans, fold, *rest, fp16 = info["init"]
    info["init"] = (plans, fold, 0, *rest, False, fp16)
    save_model_file(path, before.content, info)


@pytest.fixture
def ddp_model(make_model: Callable[..., Path], results: Path) -> Path:
    model = make_model(results, "fold_0", "fold_1", place=DDP_PLACE)
    make_model(results, "all", place=DDP_PLACE, name="model_best.model")
    make_ddp(model)
    return model


def test_a_ddp_model_gets_the_nine_arguments_of_one_gpu(
    ddp_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(load_model_file(ddp_model / "fold_0" / FINAL).info["init"]) == 11
    assert main(["-i", str(ddp_model), "-tr", "nnUNetTrainerV2"]) == 0
    out = capsys.readouterr().out
    assert "fold_0/model_final_checkpoint.model: nnUNetTrainerV2_DDP is now nnUNetTrainerV2" in out
    assert "all/model_best.model" in out and "fold_1/" in out
    assert "is still called nnUNetTrainerV2_DDP__nnUNetPlansv2.1" in out
    for path in ddp_model.glob("*/*.model"):
        model = load_model_file(path)
        beside = load_pickle(path.with_name(path.name + ".pkl"))
        assert model.info["name"] == beside["name"] == "nnUNetTrainerV2"
        assert len(model.info["init"]) == len(beside["init"]) == 9
        assert model.stage == 0
        assert torch.equal(model.state_dict["weight"], torch.ones(4))


def test_there_and_back_is_where_it_was(ddp_model: Path) -> None:
    before = load_model_file(ddp_model / "fold_0" / FINAL).info
    for name in ("nnUNetTrainerV2", "nnUNetTrainerV2_DDP"):
        assert main(["-i", str(ddp_model), "-tr", name]) == 0
    assert load_model_file(ddp_model / "fold_0" / FINAL).info == before


def test_of_v1s_checkpoints_only_the_pickle_changes(
    golden: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next((golden / "model/RESULTS_FOLDER/nnUNet/3d_fullres").glob("*/nnUNetTrainerV2__*"))
    model = tmp_path / source.name
    shutil.copytree(source, model)
    weights = (model / "fold_0" / FINAL).read_bytes()
    assert main(["-i", str(model), "-tr", "nnUNetTrainerV2_noMirroring"]) == 0
    assert (model / "fold_0" / FINAL).read_bytes() == weights
    assert load_model_file(model / "fold_0" / FINAL).info["name"] == "nnUNetTrainerV2_noMirroring"
    assert "no trainer here is called nnUNetTrainerV2_noMirroring" in capsys.readouterr().out


def test_numbers_that_training_keeps_survive(
    make_model: Callable[..., Path], results: Path
) -> None:
    model = make_model(results, place=DDP_PLACE)
    path = model / "fold_0" / FINAL
    file = load_model_file(path)
    content: dict[str, Any] = {**file.content, "plot_stuff": ([np.float64(0.5)], [np.float32(2)])}
    save_model_file(path, content, file.info)
    assert main(["-i", str(model)]) == 0
    assert load_content(path)["plot_stuff"] == ([0.5], [2.0])


def test_a_folder_without_checkpoints_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-i", str(tmp_path), "-tr", "nnUNetTrainerV2"]) == 3
    assert f"{tmp_path} holds no fold with" in capsys.readouterr().err


def test_arguments_that_are_none_of_v1s_are_refused_before_anything_is_written(
    ddp_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ddp_model / "fold_0" / FINAL
    file = load_model_file(path)
    save_model_file(path, file.content, {**file.info, "init": ("p", 0, "o", "d", True, 0)})
    before = path.read_bytes()
    assert main(["-i", str(ddp_model), "-tr", "nnUNetTrainerV2"]) == 3
    assert "does not take 6 arguments" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_a_pickle_of_v1_without_own_information_is_read_and_written(
    make_model: Callable[..., Path], results: Path
) -> None:
    path = make_model(results, place=DDP_PLACE) / "fold_0" / FINAL
    file = load_model_file(path)
    torch.save(dict(file.content), path)
    save_pickle(file.info, path.with_name(path.name + ".pkl"))
    assert main(["-i", str(path.parents[1]), "-tr", "nnUNetTrainerV2"]) == 0
    assert pickle.loads(path.with_name(path.name + ".pkl").read_bytes())["name"] == (
        "nnUNetTrainerV2"
    )
