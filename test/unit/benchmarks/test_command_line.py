"""The command, its table, its environments and its plots."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(option in said for option in ("--peer", "--json", "--quick", "--envs", "--list"))


def test_list_names_every_stage(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main
    from benchmarks.stages import every_stage

    assert main(["--list"]) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()] == list(every_stage())


def test_an_unknown_stage_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks.__main__ import main

    assert main(["resampel"]) == 2
    assert "no stage is called resampel" in capsys.readouterr().err


def test_an_interpreter_that_is_not_there_is_a_usage_error() -> None:
    from benchmarks.__main__ import main

    assert main(["hd95", "--peer", "monai", "--python", "monai=/nowhere/python"]) == 2


def test_every_stage_has_ours_and_each_peer_it_names() -> None:
    from benchmarks.harness import SIDES
    from benchmarks.sides.worker import load_side
    from benchmarks.stages import every_stage

    names = ("ours", "naive", "v1", "v2", "monai")
    sides = {name: load_side(SIDES / f"{name}.py") for name in names}
    for stage in every_stage().values():
        assert stage.name in sides["ours"].STAGES
        assert [s for s in stage.targets if stage.name not in sides[s].STAGES] == []
        assert "tiny" in stage.sizes


@pytest.mark.parametrize(
    "module", ["worker", "v1", "v2", "monai"], ids=lambda module: f"sides/{module}"
)
def test_what_runs_in_another_environment_imports_nothing_of_ours(module: str) -> None:
    from benchmarks.harness import SIDES

    text = (SIDES / f"{module}.py").read_text(encoding="utf-8")
    assert "import nnunetlike" not in text and "from nnunetlike" not in text
    assert "from benchmarks" not in text and "import benchmarks" not in text


@pytest.mark.slow
def test_ours_and_the_plain_way_agree_where_the_quick_mode_does_not_look(tmp_path: Path) -> None:
    from benchmarks.harness import Bench, Side
    from benchmarks.stages import every_stage

    chosen = [s for s in every_stage().values() if "naive" in s.targets and "quick" not in s.sizes]
    peers = {"naive": Side.of("naive")}
    with Bench(peers, tmp_path, memory=False, rounds=1) as running:
        rows = [row for stage in chosen for row in running.stage(stage, "tiny")]
    assert [(row.stage, row.failed) for row in rows if row.failed] == []


def test_the_table_has_ratio_target_and_verdict() -> None:
    from benchmarks.harness import Row
    from benchmarks.report import markdown, table

    rows = [
        Row(stage="fast", title="", peer="v1", ours_s=0.002, theirs_s=0.2, target=60,
            limit_s=0.0005, agreement="identical", ours_peak=2**20, theirs_peak=2**24),
        Row(stage="slow", title="", peer="v2", ours_s=1.0, theirs_s=2.0, target=3),
        Row(stage="broken", title="", peer="v2", failed="it differs\nand more"),
    ]  # fmt: skip
    head, fast, slow, broken = table(rows).splitlines()
    assert head.split()[:5] == ["stage", "peer", "theirs", "ours", "ratio"]
    assert all(word in fast for word in ("100x", "60x", "met", "25 %", "identical", "16 MiB"))
    assert "MISSED" in slow and "FAILED: it differs" in broken and "and more" not in broken
    about = {"date": "today", "processor": "P", "cores": 2, "memory_gib": 1, "load": 0.1}
    text = markdown(rows, about)
    assert text.startswith("- today, P, 2 cores") and text.count("\n| ") == 5


def test_a_table_is_put_between_its_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    from benchmarks.report import put

    page = tmp_path / "page.md"
    page.write_text("# Head\n<!-- table -->\nold\n<!-- /table -->\ntail\n")
    put(page, "table", "new\n")
    assert page.read_text() == "# Head\n<!-- table -->\nnew\n<!-- /table -->\ntail\n"
    put(tmp_path / "fresh.md", "table", "new\n")
    assert (tmp_path / "fresh.md").read_text() == "new\n"


def test_a_busy_machine_is_warned_of() -> None:
    from benchmarks.machine import warning

    assert warning({"load": 0.1, "cores": 2}) is None
    assert "not idle" in str(warning({"load": 1.5, "cores": 2}))


class Pip:
    """Stands in for subprocess.run."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], str | None]] = []

    def __call__(self, words: Any, env: Any = None, **_: Any) -> Any:
        constraint = (env or {}).get("PIP_CONSTRAINT")
        held = Path(constraint).read_text() if constraint else None
        self.calls.append(([str(word) for word in words], held))
        if "venv" in self.calls[-1][0]:
            python = Path(words[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.write_text("")
        return subprocess.CompletedProcess(words, 0, "", "")


def test_an_environment_is_made_once_and_nothing_may_replace_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import environments

    pip = Pip()
    monkeypatch.setattr(environments.subprocess, "run", pip)
    for _ in range(2):
        python = environments.python_of("monai", tmp_path, lambda _: None)
    assert python == tmp_path / "monai" / "bin" / "python"
    _, torch, packages = pip.calls
    assert torch[0][-1] == environments.TORCH
    assert packages[1] == f"{environments.TORCH}\n" and "monai==1.6.1" in packages[0]


def test_an_environment_of_other_packages_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import environments

    monkeypatch.setattr(environments.subprocess, "run", Pip())
    environments.python_of("v2", tmp_path, lambda _: None)
    (tmp_path / "v2" / environments.STAMP).write_text("others")
    said: list[str] = []
    environments.python_of("v2", tmp_path, said.append)
    assert len(said) == 1


def test_a_python_too_new_for_a_peer_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import environments

    monkeypatch.setattr(environments.sys, "version_info", (3, 99))
    with pytest.raises(RuntimeError, match="--python v1=PYTHON"):
        environments.python_of("v1", tmp_path)


def test_growth_is_the_slope_of_a_double_logarithmic_plot(tmp_path: Path) -> None:
    from benchmarks.scaling import Curve, Point, draw

    curve = Curve("a", "cases", tuple(Point(x, 0.5 * x, 7 * 2**20) for x in (1, 10, 100)))
    assert curve.exponents == pytest.approx((1.0, 0.0))
    path = tmp_path / "plot.png"
    draw([curve], {"processor": "P", "date": "today"}, path)
    assert path.read_bytes()[:4] == b"\x89PNG"


def test_stages_write_the_same_inputs_every_time(tmp_path: Path) -> None:
    from benchmarks.stages import every_stage

    stage = every_stage()["export_3"]
    for name in ("a", "b"):
        stage.write(tmp_path / name, "tiny")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["params.json", "values.npy"]
    assert all(
        (tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files
    )
    assert json.loads((tmp_path / "a" / "params.json").read_text())["classes"] == 3
