"""Tools run as a user runs them, and imported as modules."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TOOLS = Path(__file__).resolve().parents[3] / "tools"


@pytest.fixture(scope="session")
def imported() -> Callable[[str], ModuleType]:
    """Imports a tool by its name."""
    return _imported


def _imported(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def run_tool() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python tools/NAME.py ...` in any folder."""

    def run(name: str, *words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(TOOLS / f"{name}.py"), *map(str, words)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)

    return run
