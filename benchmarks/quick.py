"""No stage has become slow: ratios against the plain way, held against what was recorded."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import FEW, Bench, Row, Side
from benchmarks.stages import Stage

RECORDED = Path(__file__).parent / "recorded.json"
SHARE = 0.5
"""A stage fails below this share of its recorded ratio."""

AGAIN = 3
"""How often a slow stage is measured once more before it fails."""

NAIVE = "naive"


def check(
    stages: Mapping[str, Stage],
    recorded: Path,
    *,
    record: bool = False,
    ours: Side | None = None,
    naive: Side | None = None,
) -> int:
    """Measure the quick stages and return 0, or 1 if one stays below half of its record.

    Args:
        stages: by name; those without a quick size or a plain way are left out.
        recorded: JSON, ratio by stage.
        record: write the ratios there instead, the lowest of three of each.
        ours: our side, if not `sides/ours.py`.
        naive: the plain one, if not `sides/naive.py`.
    """
    chosen = [s for s in stages.values() if "quick" in s.sizes and NAIVE in s.targets]
    known: dict[str, float] = {} if record else json.loads(recorded.read_text())
    found: dict[str, float] = {}
    wrong: list[str] = []
    plain = {NAIVE: naive or Side.of(NAIVE)}
    with (
        tempfile.TemporaryDirectory() as home,
        Bench(plain, Path(home), memory=False, ours=ours, rounds=FEW) as bench,
    ):
        for stage in chosen:
            row = _measured(bench, stage)
            for _ in range(AGAIN):  # others may have been at work
                if not row.failed and slow(row, known):
                    row = _measured(bench, stage)
            again = [_measured(bench, stage) for _ in range(2)] if record else []
            found[stage.name] = min(r.ratio or 0.0 for r in (row, *again))
            print(_line(row, known), flush=True)
            if row.failed or slow(row, known):
                wrong.append(stage.name)
    if record:
        rounded = {name: float(f"{ratio:.2g}") for name, ratio in found.items()}
        recorded.write_text(json.dumps(rounded, indent=1) + "\n")
    for name in wrong:
        print(f"error: {name} is slower than half of its record, or differs", file=sys.stderr)
    return 1 if wrong else 0


def slow(row: Row, known: Mapping[str, float]) -> bool:
    """Tell whether a ratio is below half of its record."""
    wanted = known.get(row.stage)
    return wanted is not None and (row.ratio or 0.0) < SHARE * wanted


def _measured(bench: Bench, stage: Stage) -> Row:
    return bench.stage(stage, "quick", only={NAIVE})[0]


def _line(row: Row, known: Mapping[str, float]) -> str:
    if row.failed:
        return f"{row.stage:20} FAILED: {row.failed.splitlines()[0]}"
    wanted = known.get(row.stage)
    said = "" if wanted is None else f"  recorded {wanted:.3g}x"
    return f"{row.stage:20} {row.ratio or 0:8.3g}x{said}  {row.agreement}"
