from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from nnunetlike.run.print_available_pretrained_models import main as print_available
from nnunetlike.run.print_pretrained_model_info import main as print_info
from nnunetlike.sharing.catalogue import catalogue, public_model
from nnunetlike.sharing.download import check_url
from nnunetlike.sharing.layout import TASK

Capture = pytest.CaptureFixture[str]


def test_every_entry_says_all_that_is_needed() -> None:
    assert len(catalogue()) == 26
    for model in catalogue().values():
        assert TASK.fullmatch(model.name)
        texts = (model.subject, model.source, model.page, model.licence, *model.structures)
        assert all(texts) and model.channels and model.downloads
        for file in model.downloads:
            check_url(file.url)
            assert re.fullmatch(
                r"https://zenodo\.org/record/\d+/files/Task\d+_[\w.+-]+\.zip\?download=1", file.url
            )
            assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256)


def test_no_address_is_there_twice() -> None:
    addresses = [file.url for model in catalogue().values() for file in model.downloads]
    assert len(addresses) == len(set(addresses)) == 33


def test_the_table_lists_every_model_with_its_images(capsys: Capture) -> None:
    assert print_available([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in catalogue())
    assert re.search(r"Task005_Prostate +prostate zones +T2, ADC\n", out)


def test_the_facts_are_exported_as_v1_does(tmp_path: Path, capsys: Capture) -> None:
    assert print_available(["--export", str(tmp_path)]) == 0
    exported = json.loads((tmp_path / "available_models.json").read_text())
    assert exported["Task002_Heart"]["channels"] == ["MRI"]
    assert print_available(["--export", str(tmp_path / "missing")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Task135_KiTS2021", "135", "task135_kits2021"])
def test_the_facts_of_a_model_are_printed(name: str, capsys: Capture) -> None:
    assert print_info([name]) == 0
    out = capsys.readouterr().out
    assert "segments      kidney, tumour, cyst" in out
    assert "image _0000   CT" in out
    assert "CC BY-NC-SA 4.0" in out
    assert "https://zenodo.org/record/5126443/files/Task135_KiTS2021.zip?download=1" in out
    assert "(3.3 GiB)" in out
    assert "install it with: nnUNet_download_pretrained_model Task135_KiTS2021" in out


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Task003_Livr", " Did you mean 'Task003_Liver'?"), ("hippocampus", "'Task004_Hippocampus'")],
)
def test_an_unknown_model_is_answered_with_the_nearest(
    name: str, hint: str, capsys: Capture
) -> None:
    assert print_info([name]) == 2
    assert hint in capsys.readouterr().err
    assert print_info(["999"]) == 2
    assert "nnUNet_print_available_pretrained_models lists all" in capsys.readouterr().err


def test_models_are_found_by_number_whatever_its_digits() -> None:
    assert public_model("4") == public_model("004") == public_model("Task004_Hippocampus")
