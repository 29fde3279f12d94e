"""A stage that became slow fails the quick mode, and only such a stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SLOW = "sum(2 * values for _ in range(2000)) // 2000"


def check(tmp_path: Path, stage: Any, ours: Any, naive: Any, ratio: float) -> int:
    from benchmarks import quick

    recorded = tmp_path / "recorded.json"
    recorded.write_text(json.dumps({"double": ratio}))
    return quick.check({"double": stage}, recorded, ours=ours, naive=naive)


@pytest.mark.slow
def test_a_stage_that_was_slowed_down_fails(
    tmp_path: Path, side: Any, stage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(tmp_path, stage(), side("ours", SLOW), side("naive"), 1.0) == 1
    assert "double is slower than half of its record" in capsys.readouterr().err


@pytest.mark.slow
def test_a_stage_as_fast_as_recorded_passes(tmp_path: Path, side: Any, stage: Any) -> None:
    assert check(tmp_path, stage(), side("ours"), side("naive", SLOW), 2.0) == 0


@pytest.mark.slow
def test_a_stage_that_differs_fails(tmp_path: Path, side: Any, stage: Any) -> None:
    assert check(tmp_path, stage(), side("ours"), side("naive", "values"), 1e-9) == 1


def test_a_slow_stage_is_measured_once_more_before_it_fails(
    tmp_path: Path, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import quick
    from benchmarks.harness import Row

    found = [
        Row(stage="double", title="", peer="naive", ours_s=1.0, theirs_s=ratio)
        for ratio in (1.0, 9.0)
    ]
    monkeypatch.setattr(quick, "_measured", lambda *_: found.pop(0))
    assert check(tmp_path, stage(), None, None, 10.0) == 0
    assert found == []


def test_every_stage_with_a_plain_way_is_recorded() -> None:
    from benchmarks import quick
    from benchmarks.stages import every_stage

    chosen = {n for n, s in every_stage().items() if "quick" in s.sizes and "naive" in s.targets}
    assert set(json.loads(quick.RECORDED.read_text())) == chosen
