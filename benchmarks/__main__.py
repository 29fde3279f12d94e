"""Measure stages of the pipeline against the peers, side by side in one run."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import gpu, machine, quick, report, scaling
from benchmarks.environments import PEERS, default_folder, python_of
from benchmarks.harness import Bench, Row, Side, StageError
from benchmarks.stages import Size, Stage, every_stage

SCALING, GPU = "scaling", "gpu"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return 0, 1 if something failed, 2 for what cannot be understood."""
    args = parser().parse_args(argv)
    stages = every_stage()
    if args.list:
        print("\n".join(f"{stage.name:24} {stage.title}" for stage in stages.values()))
        return 0
    unknown = [name for name in args.stages if name not in (*stages, SCALING, GPU)]
    if unknown:
        print(f"error: no stage is called {', '.join(unknown)}; --list names all", file=sys.stderr)
        return 2
    if args.quick:
        return quick.check(stages, args.recorded, record=args.record)
    if SCALING in args.stages:
        size: Size = "tiny" if args.size == "tiny" else "full"
        return scaling.run(args.plot, args.json, args.markdown, size)
    if GPU in args.stages:
        device = args.device or "cuda"
        settings = gpu.tiny(device) if args.size == "tiny" else gpu.Settings(device)
        return gpu.run(settings, args.json, args.markdown)
    chosen = [stages[name] for name in args.stages] or [s for s in stages.values() if s.default]
    try:
        sides = _sides(args, chosen)
    except (RuntimeError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _measure(args, chosen, sides)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = made.add_argument
    add(
        "stages",
        nargs="*",
        metavar="stage",
        help="stages to measure, or scaling, or gpu; all stages by default",
    )
    add(
        "--peer",
        choices=(*PEERS, "none"),
        action="append",
        help="compare with this peer only; may be given several times; none measures ours alone",
    )
    add(
        "--python",
        action="append",
        default=[],
        metavar="PEER=PYTHON",
        help="interpreter that has a peer already",
    )
    add(
        "--envs",
        type=Path,
        default=default_folder(),
        help="folder for one environment per peer, made once (default: %(default)s)",
    )
    add(
        "--size",
        choices=("full", "quick", "tiny"),
        default="full",
        help="smaller inputs, for trying things out; targets are of the full ones",
    )
    add("--no_memory", action="store_true", help="leave out peaks of memory")
    add("--json", type=Path, metavar="FILE", help="also write all figures")
    add("--markdown", type=Path, metavar="FILE", help="also write the table for docs/benchmarks.md")
    add("--device", help="with gpu: another one than cuda")
    add("--plot", type=Path, metavar="FILE", help="with scaling: also write a PNG")
    add("--list", action="store_true", help="name the stages and leave")
    add(
        "--quick",
        action="store_true",
        help="ratios against plain SciPy at small sizes; fails "
        "where one is below half of what was recorded",
    )
    add("--recorded", type=Path, default=quick.RECORDED, help=argparse.SUPPRESS)
    add("--record", action="store_true", help="with --quick: write the ratios down anew")
    return made  # fmt: skip


def _sides(args: argparse.Namespace, stages: Sequence[Stage]) -> dict[str, Side]:
    """Return the peers that the stages ask for; their environments are made where missing."""
    named = dict(_pair(text) for text in args.python)
    wanted = {side for stage in stages for side in stage.targets}
    allowed = set(args.peer or PEERS)
    peers = [name for name in PEERS if name in wanted & allowed]
    found = {
        name: Side.of(name, named.get(name) or python_of(name, args.envs, _say)) for name in peers
    }
    if any("naive" in s.targets and not set(s.targets) & set(PEERS) for s in stages):
        found["naive"] = Side.of("naive")
    return found


def _pair(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    if name not in PEERS or not Path(python).is_file():
        raise ValueError(f"--python {text}: write one of {', '.join(PEERS)}, =, and a Python")
    return name, python


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measure(args: argparse.Namespace, stages: Sequence[Stage], sides: dict[str, Side]) -> int:
    about = machine.description()
    if problem := machine.warning(about):
        _say(f"warning: {problem}")
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as home,
        Bench(sides, Path(home), say=_say, memory=not args.no_memory) as bench,
    ):
        about["limits"] = bench.limits()
        about["sides"] = {}
        for stage in stages:
            size: Size = args.size if args.size in stage.sizes else "tiny"
            naive = not set(stage.targets) & set(PEERS)
            for row in bench.stage(stage, size, None if naive else set(PEERS)):
                row.limit_s = _limit(stage, size, about["limits"])
                rows.append(row)
                _say(row.failed or report.table([row]).splitlines()[1])
        for side in (bench.ours, *sides.values()):
            try:
                about["sides"][side.name] = bench.process(side).ask("describe")
            except StageError as error:
                _say(f"warning: {error}")
    print("\n".join(report.head(about)), end="\n\n")
    print(report.table(rows))
    _write(args, rows, about)
    return 1 if any(row.failed for row in rows) else 0


def _limit(stage: Stage, size: Size, limits: dict[str, float]) -> float | None:
    work = stage.work(stage.sizes[size])
    return max(work.bytes / limits["bytes_s"], work.flops / limits[work.kind]) or None


def _write(args: argparse.Namespace, rows: Sequence[Row], about: dict[str, Any]) -> None:
    if args.json:
        content = {"machine": about, "rows": [row.to_json() for row in rows]}
        args.json.write_text(json.dumps(content, indent=1))
    if args.markdown:
        report.put(args.markdown, "table", report.markdown(rows, about))


if __name__ == "__main__":
    sys.exit(main())
