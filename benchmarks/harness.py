"""Both sides of a stage in processes of their own: agreement first, then times, interleaved."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.processes import watched
from benchmarks.stages import AbsentError, Arrays, Size, Stage

ROOT = Path(__file__).resolve().parents[1]
SIDES = Path(__file__).parent / "sides"
WORKER = SIDES / "worker.py"
OWN = ("ours", "naive")
THREADS = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS",
    "NUMEXPR_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "BLOSC_NTHREADS",
    "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS",
)  # fmt: skip
SHORT_S = 0.02
"""A call shorter than this is repeated so that a measurement lasts about so long."""

ROUNDS, FEW = 5, 3
LONG_S = 6.0
"""A stage whose round lasts longer than this has few rounds."""


class StageError(Exception):
    """A side could not do a stage."""


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    name: str
    python: Path
    file: Path

    @classmethod
    def of(cls, name: str, python: Path | str = sys.executable) -> Side:
        """Return the side that `benchmarks/sides/NAME.py` describes."""
        return cls(name, Path(python), SIDES / f"{name}.py")


class Process(AbstractContextManager["Process"]):
    """A side at work, one thread, driven over pipes.

    Args:
        side: whose interpreter and file.
    """

    def __init__(self, side: Side) -> None:
        self.side = side
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [str(side.python), "-W", "ignore", str(WORKER), str(side.file)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=environment(side.name),
        )  # fmt: skip

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        if kind is not None:
            self._process.kill()
        self._process.wait()
        self._log.close()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """Send a request and return the answer.

        Raises:
            StageError: the side said that it failed, or it died.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **words}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise StageError(f"{self.side.name} died:\n{self._said()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise StageError(f"{self.side.name}: {answer['error']}\n{self._said()}")
        return answer

    def _said(self) -> str:
        self._log.seek(0)
        return self._log.read()[-1500:]


def environment(side: str) -> dict[str, str]:
    """Return the variables of a side's process: one thread, and a clean path for peers."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if side in OWN:
        kept["PYTHONPATH"] = str(ROOT)
    return {**kept, **dict.fromkeys(THREADS, "1"), "nnUNet_n_proc_DA": "1"}


@dataclass(kw_only=True)
class Row:
    """What a stage gave for one peer; seconds per call, bytes above the baseline."""

    stage: str
    title: str
    peer: str
    note: str = ""
    clock: str = "cpu"
    measures: str = "time"
    theirs_s: float | None = None
    ours_s: float | None = None
    target: float | None = None
    room: float | None = None
    peak_share: float | None = None
    limit_s: float | None = None
    agreement: str = ""
    ours_peak: int | None = None
    theirs_peak: int | None = None
    failed: str = ""
    skipped: str = ""
    """Why nothing was measured, where that is no fault."""

    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """Their time, or memory, as a multiple of ours."""
        pair = (
            (self.theirs_s, self.ours_s)
            if self.measures == "time"
            else (self.theirs_peak, self.ours_peak)
        )
        return None if None in pair or not pair[1] else float(pair[0]) / float(pair[1])  # type: ignore[arg-type]

    @property
    def share_of_limit(self) -> float | None:
        """Time of the machine's limit as a share of ours."""
        return None if not self.limit_s or not self.ours_s else self.limit_s / self.ours_s

    @property
    def share_of_peak(self) -> float | None:
        """Our peak as a share of theirs."""
        known = self.ours_peak is not None and self.theirs_peak
        return float(self.ours_peak) / float(self.theirs_peak) if known else None  # type: ignore[arg-type]

    @property
    def met(self) -> bool | None:
        """Whether target and room are kept; None where nothing is wanted or was measured."""
        judged = [
            found >= wanted
            for found, wanted in (
                (self.ratio, self.target),
                (self.room, self.ours_peak),
                (self.peak_share, self.share_of_peak),
            )
            if found is not None and wanted is not None
        ]
        return all(judged) if judged else None

    def to_json(self) -> dict[str, Any]:
        """Return all of it for a file."""
        derived = {"ratio": self.ratio, "share_of_limit": self.share_of_limit, "met": self.met}
        return {**asdict(self), **derived}


def _row(stage: Stage, peer: str, *, wanted: bool) -> Row:
    """Return an empty row; what is wanted is so of full inputs only."""
    row = Row(
        stage=stage.name, title=stage.title, peer=peer or "none", clock=stage.clock,
        measures=stage.measures, note=stage.note,
    )  # fmt: skip
    if wanted:
        row.target, row.room = stage.targets.get(peer), stage.room
        row.peak_share = stage.peak_share
    return row


def interleaved(
    ours: Callable[[int], float],
    theirs: Callable[[int], float],
    first: tuple[float, float],
    rounds: int = ROUNDS,
) -> tuple[float, float]:
    """Return the medians of seconds per call of two sides that take turns.

    Args:
        ours: runs so many times and returns seconds per call.
        theirs: the same of the other side.
        first: about how long one call of each lasts.
        rounds: how often, fewer where they are long.
    """
    times = [max(1, round(SHORT_S / max(seconds, 1e-6))) for seconds in first]
    rounds = rounds if sum(first) < LONG_S else FEW
    pairs = [(ours(times[0]), theirs(times[1])) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


class Bench:
    """Runs stages for some peers.

    Args:
        peers: sides to compare with, by name.
        home: folder for inputs.
        say: told about progress.
        memory: also measure peaks, in fresh processes.
        ours: our side.
        rounds: how often each side is timed.
    """

    def __init__(
        self,
        peers: Mapping[str, Side],
        home: Path,
        *,
        say: Callable[[str], None] = lambda _: None,
        memory: bool = True,
        ours: Side | None = None,
        rounds: int = ROUNDS,
    ) -> None:
        self.peers, self.home, self.say, self.memory = peers, home, say, memory
        self.rounds = rounds
        self.ours = ours or Side.of("ours")
        self._open = ExitStack()
        self._processes: dict[str, Process] = {}

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *what: Any) -> None:
        self._open.__exit__(*what)

    def stage(
        self, stage: Stage, size: Size = "full", only: Collection[str] | None = None
    ) -> list[Row]:
        """Return the rows of a stage: one per peer that has it, or one of ours alone.

        Args:
            stage: to be measured.
            size: of its inputs.
            only: leave out peers that are not among these.
        """
        rows = []
        with tempfile.TemporaryDirectory(dir=self.home) as name:
            folder = Path(name) / "inputs"
            try:
                stage.write(folder, size)
            except AbsentError as reason:
                row = _row(stage, "", wanted=False)
                row.skipped = str(reason)
                return [row]
            names = [
                peer
                for peer in self.peers
                if peer in stage.targets and (only is None or peer in only)
            ]
            for peer in names or [""]:
                self.say(f"{stage.name}{f' against {peer}' if peer else ''} …")
                row = _row(stage, peer, wanted=size == "full")
                try:
                    self._compare(stage, folder, row, peer)
                except StageError as error:
                    row.failed = str(error)
                rows.append(row)
            self._peaks(stage, folder, rows, size)
        return rows

    def limits(self) -> dict[str, float]:
        """Return what one thread of this machine can do, see `machine.limits`."""
        found: dict[str, float] = self.process(self.ours).ask("limits")
        return found

    def process(self, side: Side) -> Process:
        """Return the process of a side that serves all stages, started when first asked for."""
        if side.name not in self._processes:
            self._processes[side.name] = self._open.enter_context(Process(side))
        return self._processes[side.name]

    def _compare(self, stage: Stage, folder: Path, row: Row, peer: str) -> None:
        sides = [self.ours, *([self.peers[peer]] if peer else [])]
        with ExitStack() as opened:
            try:
                both = [self._for(stage, side, opened) for side in sides]
                firsts = [self._first(process, stage, folder, row) for process in both]
            except StageError:
                for side in sides:  # whoever died or is confused starts anew
                    self._processes.pop(side.name, None)
                raise
            self._judge(stage, peer, firsts, row)
            self._time(stage, both, [seconds for seconds, _ in firsts], row)

    def _for(self, stage: Stage, side: Side, opened: ExitStack) -> Process:
        """Return the process of a side; where its memory counts in a command's, a fresh one."""
        return opened.enter_context(Process(side)) if stage.once else self.process(side)

    def _judge(
        self, stage: Stage, peer: str, firsts: Sequence[tuple[float, Arrays]], row: Row
    ) -> None:
        if peer:
            found = stage.agreement(peer, firsts[0][1], firsts[1][1])
            row.agreement = found.text
            if not found.holds:
                raise StageError(f"no agreement with {peer}: {found.text}; nothing was timed")
        elif stage.show is not None:
            row.agreement = stage.show(firsts[0][1])

    def _first(
        self, process: Process, stage: Stage, folder: Path, row: Row
    ) -> tuple[float, Arrays]:
        """Load and run a stage once; return about how long a call lasts, and its result."""
        process.ask("load", stage=stage.name, folder=str(folder))
        with watched(process.pid, stage.once) as seen:
            took = process.ask("run")
        if stage.once:
            peak = "ours_peak" if process.side.name == self.ours.name else "theirs_peak"
            setattr(row, peak, seen.peak)
        with tempfile.TemporaryDirectory(dir=self.home) as name:
            path = Path(name) / "result.npz"
            process.ask("save", path=str(path))
            with np.load(path) as archive:
                found = dict(archive)
        if not stage.once and took["cpu"] < LONG_S:
            took = process.ask("run")  # the first one compiled and imported
        row.details[process.side.name] = {"cpu_s": took["cpu"], "wall_s": took["wall"]}
        return took[stage.clock], found

    def _time(
        self, stage: Stage, both: Sequence[Process], firsts: Sequence[float], row: Row
    ) -> None:
        def timed(process: Process) -> Callable[[int], float]:
            return lambda times: float(process.ask("run", times=times)[stage.clock])

        if stage.once or stage.measures == "memory":
            row.ours_s, row.theirs_s = firsts[0], firsts[1] if len(firsts) > 1 else None
        elif len(both) == 1:
            run = timed(both[0])
            row.ours_s, _ = interleaved(run, lambda _: 0.0, (firsts[0], 0.0), self.rounds)
        else:
            ours, theirs = map(timed, both)
            first = firsts[0], firsts[1]
            row.ours_s, row.theirs_s = interleaved(ours, theirs, first, self.rounds)

    def _peaks(self, stage: Stage, folder: Path, rows: Sequence[Row], size: Size) -> None:
        """Fill in the peaks: each side warms up on tiny inputs in a process of its own."""
        if stage.once or not (self.memory or stage.measures == "memory"):
            return
        good = [row for row in rows if not row.failed]
        try:
            ours = self._peak(stage, self.ours, folder, size) if good else None
            for row in good:
                row.ours_peak = ours
                if row.peer != "none":
                    row.theirs_peak = self._peak(stage, self.peers[row.peer], folder, size)
        except StageError as error:
            for row in good:
                row.failed = row.failed or f"memory: {error}"

    def _peak(self, stage: Stage, side: Side, folder: Path, size: Size) -> int:
        with tempfile.TemporaryDirectory(dir=self.home) as name, Process(side) as process:
            tiny = Path(name) / "tiny"
            if size != "tiny" and "tiny" in stage.sizes:
                stage.write(tiny, "tiny")
                process.ask("load", stage=stage.name, folder=str(tiny))
                process.ask("run")
            process.ask("load", stage=stage.name, folder=str(folder))
            found = process.ask("peak")
        return int(found["peak"] - found["baseline"])
