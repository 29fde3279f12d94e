from __future__ import annotations

import ast
import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
V1_SCRIPTS = (
    "nnUNet_change_trainer_class", "nnUNet_convert_decathlon_task",
    "nnUNet_determine_postprocessing", "nnUNet_download_pretrained_model",
    "nnUNet_download_pretrained_model_by_url", "nnUNet_ensemble", "nnUNet_evaluate_folder",
    "nnUNet_export_model_to_zip", "nnUNet_find_best_configuration",
    "nnUNet_install_pretrained_model_from_zip", "nnUNet_plan_and_preprocess",
    "nnUNet_plot_task_pngs", "nnUNet_predict", "nnUNet_print_available_pretrained_models",
    "nnUNet_print_pretrained_model_info", "nnUNet_train", "nnUNet_train_DDP", "nnUNet_train_DP",
)  # fmt: skip


def commands() -> dict[str, str]:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "COMMANDS"
    ]
    return dict(ast.literal_eval(values[0]))


def test_entering_a_script_loads_no_torch() -> None:
    code = (
        "from nnunetlike.run.scripts import run_training; import sys; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("command", sorted(commands()))
def test_every_installed_command_explains_itself(command: str) -> None:
    script = Path(sys.executable).parent / command
    done = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {command}")


@pytest.mark.parametrize("module", sorted(set(commands().values()) - {"run_training_DDP"}))
def test_the_examples_of_every_help_are_taken_by_its_command(module: str) -> None:
    parser = importlib.import_module(f"nnunetlike.run.{module}").build_parser()
    assert parser.examples
    for example in parser.examples:
        assert example in parser.format_help()
        command, *words = shlex.split(example)
        assert command == parser.prog
        parser.parse_args(words)


def test_every_console_script_of_v1_is_there() -> None:
    assert set(V1_SCRIPTS) <= set(commands())


@pytest.mark.parametrize("module", sorted(commands().values()))
def test_every_command_also_runs_as_a_module(module: str) -> None:
    words = [sys.executable, "-m", f"nnunetlike.run.{module}", "--nonsense"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "usage:" in done.stderr
