from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nnunetlike import __version__
from nnunetlike.core.resources import Space
from nnunetlike.run.export_model_to_zip import main as export
from nnunetlike.run.install_pretrained_model_from_zip import main as install
from nnunetlike.sharing.layout import MANIFEST

TASK = "Task901_Tiny"
MODEL = "nnUNetTrainerV2__nnUNetPlansv2.1"
PLACE = f"3d_fullres/{TASK}/{MODEL}"
FINAL = "model_final_checkpoint.model"
Capture = pytest.CaptureFixture[str]
Make = Callable[..., Path]


def members(path: Path) -> set[str]:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist())


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def packed(make_model: Make, results: Path, tmp_path: Path) -> Path:
    """A zip of a model of two folds."""
    make_model(results, "fold_0", "fold_1")
    assert export(["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "0", "1"]) == 0
    return tmp_path / "m.zip"


def without_manifest(path: Path) -> Path:
    """Write the same zip as v1 would have."""
    plain = path.with_name("v1.zip")
    with zipfile.ZipFile(path) as ours, zipfile.ZipFile(plain, "w") as theirs:
        for name in ours.namelist():
            if name != MANIFEST:
                theirs.writestr(name, ours.read(name))
    return plain


def test_a_zip_holds_what_prediction_needs_under_v1s_paths(
    make_model: Make, results: Path, tmp_path: Path, capsys: Capture
) -> None:
    model = make_model(results, "fold_0", "fold_1")
    for name in ("debug.json", "progress.png", "model_best.model", "metrics.jsonl", "x.npz"):
        (model / "fold_0" / name).write_bytes(b"{}")
    assert export(["-t", TASK, "-o", str(tmp_path / "m.zip"), "-f", "0", "1"]) == 0
    assert members(tmp_path / "m.zip") == {
        f"{PLACE}/plans.pkl",
        f"{PLACE}/postprocessing.json",
        *(f"{PLACE}/fold_{k}/{FINAL}{end}" for k in (0, 1) for end in ("", ".pkl")),
        MANIFEST,
    }
    out = capsys.readouterr().out
    assert f"{PLACE}: fold_0, fold_1" in out
    assert "no licence is stated" in out


def test_reports_are_packed_when_asked_for(make_model: Make, results: Path, tmp_path: Path) -> None:
    model = make_model(results)
    (model / "fold_0" / "debug.json").write_text("{}")
    (model / "fold_0" / "progress.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = ["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "0", "--reports"]
    assert export(words) == 0
    assert {f"{PLACE}/fold_0/{n}" for n in ("debug.json", "progress.png")} < members(
        tmp_path / "m.zip"
    )


def test_the_manifest_names_versions_models_licence_and_hashes(
    make_model: Make, results: Path, tmp_path: Path
) -> None:
    make_model(results, "all")
    text = tmp_path / "LICENCE"
    text.write_text("My licence\n\nDo what you like.\n")
    words = ["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "all", "--license", str(text)]
    assert export(words) == 0
    with zipfile.ZipFile(tmp_path / "m.zip") as archive:
        manifest = json.loads(archive.read(MANIFEST))
    assert manifest["format_version"] == 1
    assert manifest["nnunetlike_version"] == __version__
    assert manifest["task"] == TASK
    assert manifest["models"] == [{"configuration": "3d_fullres", "name": MODEL, "folds": ["all"]}]
    assert manifest["licence"] == "My licence"
    assert manifest["licence_text"].endswith("Do what you like.\n")
    plans = manifest["files"][f"{PLACE}/plans.pkl"]
    assert plans["size"] == (results / PLACE / "plans.pkl").stat().st_size
    assert len(plans["sha256"]) == 64


def test_absent_folds_are_named_and_nothing_is_written(
    make_model: Make, results: Path, tmp_path: Path, capsys: Capture
) -> None:
    make_model(results, "fold_0", "fold_3")
    assert export(["-t", "901", "-o", str(tmp_path / "m.zip")]) == 3
    err = capsys.readouterr().err
    assert all(f"fold_{fold}" in err for fold in (1, 2, 4))
    assert "fold_0" not in err and "fold_3" not in err
    assert "--disable_strict" in err
    assert not (tmp_path / "m.zip").exists()


def test_absent_folds_are_left_out_when_asked(
    make_model: Make, results: Path, tmp_path: Path, capsys: Capture
) -> None:
    make_model(results, "fold_0", "fold_3")
    assert export(["-t", "901", "-o", str(tmp_path / "m.zip"), "--disable_strict"]) == 0
    out = capsys.readouterr().out
    assert f"absent: {PLACE}/fold_1 ({FINAL})" in out
    assert f"{PLACE}: fold_0, fold_3" in out


def test_a_configuration_that_is_asked_for_and_absent_is_named(
    make_model: Make, results: Path, tmp_path: Path, capsys: Capture
) -> None:
    make_model(results)
    words = ["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "0", "-m", "2d", "3d_fullres"]
    assert export(words) == 3
    assert f"absent: 2d/{TASK}/{MODEL}" in capsys.readouterr().err
    assert export([*words, "--disable_strict"]) == 0


def test_nothing_trained_says_what_was_looked_for(
    home: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert export(["-t", TASK, "-o", str(tmp_path / "m.zip"), "--disable_strict"]) == 3
    assert f"nothing of {TASK} can be exported. Absent: 2d/{TASK}" in capsys.readouterr().err


def test_all_trained_configurations_and_their_ensembles_are_packed(
    make_model: Make, results: Path, tmp_path: Path, capsys: Capture
) -> None:
    make_model(results)
    make_model(results, place=f"2d/{TASK}/{MODEL}")
    make_model(
        results, place=f"3d_cascade_fullres/{TASK}/nnUNetTrainerV2CascadeFullRes__{MODEL[17:]}"
    )
    ensembles = results / "ensembles" / TASK
    for name in (f"2d__{MODEL}--3d_fullres__{MODEL}", f"2d__{MODEL}--3d_lowres__{MODEL}"):
        (ensembles / f"ensemble_{name}").mkdir(parents=True)
        (ensembles / f"ensemble_{name}" / "postprocessing.json").write_text("{}")
    assert export(["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "0"]) == 0
    packed = members(tmp_path / "m.zip")
    whole = f"ensembles/{TASK}/ensemble_2d__{MODEL}--3d_fullres__{MODEL}/postprocessing.json"
    assert [name for name in packed if name.startswith("ensembles")] == [whole]
    assert "predicts from 3d_lowres, which is not among the models" in capsys.readouterr().out


def test_other_checkpoints_are_packed_by_name(
    make_model: Make, results: Path, tmp_path: Path, capsys: Capture
) -> None:
    make_model(results, name="model_best.model")
    words = ["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "0", "-chk", "model_best"]
    assert export(words) == 0
    assert f"{PLACE}/fold_0/model_best.model" in members(tmp_path / "m.zip")
    assert install([str(tmp_path / "m.zip")]) == 0
    assert "-chk model_best" in capsys.readouterr().out


def test_a_zip_is_not_overwritten_unless_asked(packed: Path, capsys: Capture) -> None:
    before = packed.read_bytes()
    words = ["-t", "901", "-o", str(packed), "-f", "0"]
    assert export(words) == 2
    assert "exists already" in capsys.readouterr().err
    assert packed.read_bytes() == before
    assert export([*words, "--overwrite"]) == 0
    assert packed.read_bytes() != before


def test_the_name_of_the_zip_must_say_so(packed: Path, capsys: Capture) -> None:
    assert export(["-t", "901", "-o", str(packed.with_suffix(".tar")), "-f", "0"]) == 2
    assert "must end in .zip" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_not_packed(
    make_model: Make, results: Path, tmp_path: Path, capsys: Capture
) -> None:
    model = make_model(results)
    path = model / "fold_0" / FINAL
    path.write_bytes(path.read_bytes()[:500])
    assert export(["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "0"]) == 3
    assert "cannot be read as a checkpoint" in capsys.readouterr().err
    assert list(tmp_path.glob("*.zip")) == []


def test_a_model_without_plans_is_not_packed(
    make_model: Make, results: Path, tmp_path: Path, capsys: Capture
) -> None:
    (make_model(results) / "plans.pkl").unlink()
    assert export(["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "0"]) == 3
    assert "lacks plans.pkl, which prediction needs" in capsys.readouterr().err


def test_a_full_disk_is_told_before_anything_is_written(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("nnunetlike.core.disk.disk_space", lambda folder: Space(100, 10))
    assert export(["-t", "901", "-o", str(tmp_path / "other.zip"), "-f", "0"]) == 4
    assert "other.zip needs about" in capsys.readouterr().err
    monkeypatch.setenv("RESULTS_FOLDER", str(tmp_path / "new"))
    assert install([str(packed)]) == 4
    assert "installing m.zip needs about" in capsys.readouterr().err
    assert not (tmp_path / "other.zip").exists()
    assert not (tmp_path / "new").exists()


def test_an_installed_model_is_the_exported_one_to_the_byte(
    packed: Path, results: Path, elsewhere: Path, capsys: Capture
) -> None:
    assert install([str(packed)]) == 0
    installed = files(elsewhere)
    manifest = installed.pop(f"{PLACE}/{MANIFEST}")
    assert json.loads(manifest)["files"].keys() == installed.keys()
    assert installed == files(results)
    out = capsys.readouterr().out
    assert f"made by nnunetlike {__version__}; all hashes are right" in out
    assert "licence: none stated" in out
    assert f"installed {elsewhere / PLACE}: fold_0, fold_1" in out
    assert (
        "predict with: nnUNet_predict -i INPUT_FOLDER -o OUTPUT_FOLDER "
        f"-t {TASK} -m 3d_fullres -tr nnUNetTrainerV2 -p nnUNetPlansv2.1\n" in out
    )


def test_a_zip_of_v1_installs_and_says_that_nothing_could_be_checked(
    packed: Path, results: Path, elsewhere: Path, capsys: Capture
) -> None:
    assert install([str(without_manifest(packed))]) == 0
    assert files(elsewhere) == files(results)
    assert "has no manifest, as zips of nnU-Net v1: whether it is whole" in capsys.readouterr().out


@pytest.mark.parametrize("manifest", [True, False])
def test_installing_twice_does_nothing_the_second_time(
    packed: Path, elsewhere: Path, manifest: bool, capsys: Capture
) -> None:
    path = packed if manifest else without_manifest(packed)
    assert install([str(path)]) == 0
    times = {p: p.stat().st_mtime_ns for p in elsewhere.rglob("*")}
    assert install([str(path)]) == 0
    assert "is installed already, with the same files (fold_0, fold_1)" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in elsewhere.rglob("*") if p != elsewhere} == {
        p: t for p, t in times.items() if p != elsewhere
    }


def test_another_model_of_the_same_name_stays(
    packed: Path, make_model: Make, elsewhere: Path, capsys: Capture
) -> None:
    make_model(elsewhere, "fold_0", "fold_1", weight=2.0)
    before = files(elsewhere)
    assert install([str(packed)]) == 3
    err = capsys.readouterr().err
    assert "another model is installed as" in err
    assert f"fold_0/{FINAL}" in err and "--force" in err
    assert "plans.pkl differ" not in err
    assert files(elsewhere) == before


def test_force_takes_the_place_and_keeps_the_other_model(
    packed: Path, results: Path, make_model: Make, elsewhere: Path, capsys: Capture
) -> None:
    for number in (1, 2):
        make_model(elsewhere, "fold_0", weight=1.0 + number)
        (elsewhere / PLACE / "fold_0" / "progress.png").write_text("mine")
        before = files(elsewhere / PLACE)
        assert install([str(packed), "--force"]) == 0
        aside = elsewhere / "3d_fullres" / TASK / f"replaced-{number}-{MODEL}"
        assert f"the model that was there before is {aside}" in capsys.readouterr().out
        assert before.items() <= files(aside).items()
        installed = files(elsewhere / PLACE)
        installed.pop(MANIFEST)
        assert installed == files(results / PLACE)


def test_force_leaves_an_identical_model_alone(
    packed: Path, elsewhere: Path, capsys: Capture
) -> None:
    assert install([str(packed)]) == 0
    assert install([str(packed), "--force"]) == 0
    assert "is installed already" in capsys.readouterr().out
    assert len(list((elsewhere / "3d_fullres" / TASK).iterdir())) == 1


def test_folds_that_are_missing_are_added_to_the_same_model(
    packed: Path, results: Path, elsewhere: Path, tmp_path: Path, capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("RESULTS_FOLDER", str(results.parent))
    first = tmp_path / "first.zip"
    assert export(["-t", "901", "-o", str(first), "-f", "0"]) == 0
    monkeypatch.setenv("RESULTS_FOLDER", str(elsewhere.parent))
    assert install([str(first)]) == 0
    assert install([str(packed)]) == 0
    assert "what was missing was added; the zip has fold_0, fold_1" in capsys.readouterr().out
    assert (elsewhere / PLACE / "fold_1" / FINAL).is_file()


def test_a_folder_without_plans_is_not_taken_for_the_same_model(
    packed: Path, elsewhere: Path, capsys: Capture
) -> None:
    (elsewhere / PLACE).mkdir(parents=True)
    (elsewhere / PLACE / "notes.txt").write_text("mine")
    assert install([str(packed)]) == 3
    assert "another model is installed as" in capsys.readouterr().err
    assert install([str(packed), "--force"]) == 0


def test_where_one_of_two_models_differs_neither_is_installed(
    make_model: Make, results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(results)
    make_model(results, place=f"2d/{TASK}/{MODEL}")
    assert export(["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "0"]) == 0
    other = tmp_path / "other" / "nnUNet"
    monkeypatch.setenv("RESULTS_FOLDER", str(tmp_path / "other"))
    make_model(other, weight=3.0)
    assert install([str(tmp_path / "m.zip")]) == 3
    assert [p.name for p in other.iterdir()] == ["3d_fullres"]


def test_the_command_for_a_cascade_and_the_fold_all_is_right(
    make_model: Make, results: Path, tmp_path: Path, elsewhere: Path, capsys: Capture
) -> None:
    trainer = "nnUNetTrainerV2CascadeFullRes"
    make_model(elsewhere, "all", place=f"3d_cascade_fullres/{TASK}/{trainer}__nnUNetPlansv2.1")
    assert export(["-t", "901", "-o", str(tmp_path / "m.zip"), "-f", "all"]) == 0
    assert install([str(tmp_path / "m.zip")]) == 0
    out = capsys.readouterr().out
    assert f"-m 3d_cascade_fullres -ctr {trainer} -p nnUNetPlansv2.1 -f all" in out


def test_what_a_killed_installation_left_is_removed_once_it_is_old(
    packed: Path, elsewhere: Path
) -> None:
    for name in (".tmp-1-install", ".tmp-2-install", f".tmp-{os.getpid()}-install"):
        (elsewhere / name / "3d_fullres").mkdir(parents=True)
    os.utime(elsewhere / ".tmp-1-install", (0, 0))
    assert install([str(packed)]) == 0
    assert {p.name for p in elsewhere.iterdir()} == {"3d_fullres", ".tmp-2-install"}


def test_an_interrupted_installation_leaves_nothing(
    packed: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nnunetlike.sharing.install.check_file", interrupt)
    assert install([str(packed)]) == 5
    assert not elsewhere.exists()


def test_links_of_the_user_in_the_results_are_followed(
    packed: Path, elsewhere: Path, tmp_path: Path
) -> None:
    (tmp_path / "big_disk").mkdir()
    elsewhere.mkdir(parents=True)
    (elsewhere / "3d_fullres").symlink_to(tmp_path / "big_disk")
    assert install([str(packed)]) == 0
    assert (tmp_path / "big_disk" / TASK / MODEL / "plans.pkl").is_file()


def test_no_results_folder_is_told(
    packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.delenv("RESULTS_FOLDER")
    assert install([str(packed)]) == 2
    assert "RESULTS_FOLDER is not set" in capsys.readouterr().err


def test_a_zip_that_is_not_there_is_told(home: Path, capsys: Capture) -> None:
    assert install(["no.zip"]) == 3
    assert "no.zip is no file" in capsys.readouterr().err
