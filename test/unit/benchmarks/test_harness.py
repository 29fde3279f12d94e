"""Agreement first, then times in turn; and what a side does wrong is told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 120


def bench(tmp_path: Path, ours: Any, peer: Any, **settings: Any) -> Any:
    from benchmarks.harness import Bench

    settings = {"memory": False, "rounds": 3, **settings}
    return Bench({"peer": peer}, tmp_path, ours=ours, **settings)


def row(**values: Any) -> Any:
    from benchmarks.harness import Row

    return Row(stage="a", title="a", peer="v1", **values)


def test_sides_take_turns_and_the_median_counts() -> None:
    from benchmarks.harness import interleaved

    said = []
    times = {"ours": [3.0, 1.0, 90.0], "theirs": [8.0, 70.0, 6.0]}

    def side(name: str) -> Callable[[int], float]:
        def timed(_: int) -> float:
            said.append(name)
            return times[name].pop(0)

        return timed

    assert interleaved(side("ours"), side("theirs"), (1.0, 1.0), rounds=3) == (3.0, 8.0)
    assert said == ["ours", "theirs"] * 3


def test_short_calls_are_repeated_within_a_measurement() -> None:
    from benchmarks.harness import SHORT_S, interleaved

    asked = []
    interleaved(lambda n: asked.append(n) or 1.0, lambda _: 1.0, (SHORT_S / 10, 1.0), rounds=1)
    assert asked == [10]


def test_the_ratio_is_their_time_over_ours() -> None:
    assert row(ours_s=2.0, theirs_s=10.0).ratio == 5.0
    assert row(ours_s=2.0).ratio is None


def test_the_ratio_of_memory_is_their_peak_over_ours() -> None:
    assert row(measures="memory", ours_peak=5, theirs_peak=20, ours_s=1, theirs_s=1).ratio == 4.0


def test_a_target_is_missed_by_time_or_by_room() -> None:
    assert row(ours_s=1.0, theirs_s=5.0, target=4.0).met is True
    assert row(ours_s=1.0, theirs_s=3.0, target=4.0).met is False
    assert row(ours_s=1.0, theirs_s=5.0, target=4.0, room=10.0, ours_peak=20).met is False
    assert row(ours_peak=6, theirs_peak=10, peak_share=0.5).met is False
    assert row(ours_peak=4, theirs_peak=10, peak_share=0.5).met is True
    assert row(ours_s=1.0, theirs_s=5.0).met is None


@pytest.mark.slow
def test_sides_that_agree_are_timed(tmp_path: Path, side: Any, stage: Any) -> None:
    with bench(tmp_path, side("ours"), side("peer", "values + values")) as running:
        (found,) = running.stage(stage())
        described = running.process(running.ours).ask("describe")
    assert found.failed == "" and found.agreement == "identical"
    assert found.ours_s > 0 and found.theirs_s > 0 and found.ratio > 0
    assert described["versions"]["numpy"] and described["versions"]["no-such-distribution"] is None


@pytest.mark.slow
def test_sides_that_differ_are_not_timed(tmp_path: Path, side: Any, stage: Any) -> None:
    with bench(tmp_path, side("ours"), side("peer", "3 * values")) as running:
        (found,) = running.stage(stage())
    assert "no agreement with peer" in found.failed and "of 1000 differ" in found.failed
    assert found.ours_s is None and found.theirs_s is None


@pytest.mark.slow
@pytest.mark.parametrize(("name", "said"), [("fail", "cannot read this"), ("die", "ours died")])
def test_a_side_that_fails_is_told_and_the_next_stage_goes_on(
    tmp_path: Path, side: Any, stage: Any, name: str, said: str
) -> None:
    with bench(tmp_path, side("ours"), side("peer")) as running:
        (wrong,), (right,) = running.stage(stage(name)), running.stage(stage())
    assert said in wrong.failed and right.failed == ""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_peaks_are_those_of_fresh_processes_above_their_baseline(
    tmp_path: Path, side: Any, stage: Any
) -> None:
    sides = side("ours", megabytes=8), side("peer", megabytes=64)
    with bench(tmp_path, *sides, memory=True) as running:
        (found,) = running.stage(stage("memory", measures="memory"))
    assert 7 * 2**20 < found.ours_peak < 20 * 2**20
    assert 60 * 2**20 < found.theirs_peak < 80 * 2**20


@pytest.mark.slow
def test_ours_alone_is_measured_without_peers(tmp_path: Path, side: Any, stage: Any) -> None:
    from benchmarks.harness import Bench

    with Bench({}, tmp_path, ours=side("ours"), memory=False) as running:
        (found,) = running.stage(stage())
    assert found.peer == "none" and found.ours_s > 0 and found.ratio is None


def test_a_stage_whose_inputs_are_not_here_is_skipped_with_the_reason(
    tmp_path: Path, side: Any, stage: Any
) -> None:
    from benchmarks.report import table
    from benchmarks.stages import AbsentError

    def missing(folder: Path, rng: object, *, count: int) -> None:
        raise AbsentError(f"{count} files are not here")

    with bench(tmp_path, side("ours"), side("peer")) as running:
        (found,) = running.stage(stage(make=missing))
    assert found.failed == "" and found.met is None
    assert "skipped: 1000 files are not here" in table([found])


@pytest.mark.slow
def test_a_stage_that_runs_once_has_a_process_of_its_own(
    tmp_path: Path, side: Any, stage: Any
) -> None:
    with bench(tmp_path, side("ours"), side("peer")) as running:
        (found,) = running.stage(stage(once=True))
        assert running._processes == {}
    assert found.failed == "" and found.ours_s > 0 and found.theirs_s > 0


def test_one_thread_is_asked_for_and_peers_see_no_path_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from benchmarks.harness import THREADS, environment

    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert "PYTHONPATH" not in environment("v1")
    assert environment("ours")["PYTHONPATH"] != "/somewhere"
    assert {environment("v1")[name] for name in THREADS} == {"1"}


@pytest.mark.slow
def test_the_worker_answers_lines_while_its_side_prints(tmp_path: Path) -> None:
    from benchmarks.harness import WORKER

    side = tmp_path / "side.py"
    side.write_text(
        "DISTRIBUTIONS = ()\nSTAGES = {'say': lambda folder: lambda: print('hello') or [1]}\n"
    )
    requests = '{"do": "load", "stage": "say", "folder": "."}\n{"do": "run", "times": 2}\n'
    done = subprocess.run(
        [sys.executable, str(WORKER), str(side)],
        input=requests, capture_output=True, text=True, timeout=LIMIT_S, check=True,
    )  # fmt: skip
    loaded, ran = done.stdout.splitlines()
    assert loaded == "{}" and set(json.loads(ran)) == {"cpu", "wall"}
    assert done.stderr.count("hello") == 2


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
def test_memory_of_children_is_seen() -> None:
    from benchmarks.processes import watched

    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    child = "block = b'x' * 2**26; import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, child], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:  # fmt: skip
        assert parent.stdout is not None
        with watched(parent.pid) as seen:
            parent.stdout.readline()
            before = time.monotonic()
            while (seen.peak or 0) < 2**26 and time.monotonic() - before < LIMIT_S:
                time.sleep(0.05)
        parent.communicate(timeout=LIMIT_S)
    assert seen.peak is not None and seen.peak >= 2**26
