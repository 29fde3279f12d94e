from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


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


@pytest.mark.parametrize("module", sorted(commands().values()))
def test_every_command_also_runs_as_a_module(module: str) -> None:
    words = [sys.executable, "-m", f"nnunetlike.run.{module}", "--nonsense"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "usage:" in done.stderr
