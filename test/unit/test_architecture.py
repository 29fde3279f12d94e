"""The layers of the house: a package imports only from rows below its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "nnunetlike"

LEVEL = {
    "core": 1,
    "data": 2,
    "monitoring": 2,
    "plans": 3,
    "networks": 4,
    "preprocessing": 4,
    "evaluation": 4,
    "dataset_conversion": 4,
    "postprocessing": 5,
    "experiment_planning": 6,
    "training": 6,
    "inference": 6,
    "sharing": 6,
    "run": 7,
}
FACADES = {"predictor": 7}
"""Modules beside the packages: what programs import. No package imports them."""

TORCH_FREE = ("core", "data", "plans")


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} uses a relative import"
            yield node.lineno, node.module or ""


def modules() -> list[Path]:
    return sorted(ROOT.glob("*/**/*.py"))


def test_every_package_has_a_level() -> None:
    packages = {path.relative_to(ROOT).parts[0] for path in modules()}
    assert packages == set(LEVEL)


def test_imports_point_down() -> None:
    level = LEVEL | FACADES
    wrong = []
    for path in (*modules(), *(ROOT / f"{name}.py" for name in FACADES)):
        here = path.relative_to(ROOT).parts[0].removesuffix(".py")
        for line, module in imported_modules(path):
            root, _, rest = module.partition(".")
            there = rest.partition(".")[0]
            if root == "nnunetlike" and there not in ("", here) and level[there] >= level[here]:
                wrong.append(f"{path}:{line} imports {module}")
    assert not wrong, "\n".join(wrong)


def test_every_module_beside_the_packages_has_a_level() -> None:
    assert {path.stem for path in ROOT.glob("*.py")} == {"__init__", *FACADES}


def test_data_and_plans_need_no_torch() -> None:
    wrong = [
        f"{path}:{line}"
        for path in modules()
        if path.relative_to(ROOT).parts[0] in TORCH_FREE
        for line, module in imported_modules(path)
        if module.partition(".")[0] == "torch"
    ]
    assert not wrong, "\n".join(wrong)


def test_no_star_import() -> None:
    wrong = [
        f"{path}:{node.lineno}"
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and any(name.name == "*" for name in node.names)
    ]
    assert not wrong, "\n".join(wrong)
