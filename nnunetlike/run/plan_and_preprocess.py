"""nnUNet_plan_and_preprocess: from a raw task to plans, splits and preprocessed cases."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from nnunetlike.core.disk import require_space
from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.in_use import using
from nnunetlike.core.parallel import Workers, default_processes
from nnunetlike.core.paths import cropped_data, preprocessed, raw_data, task_name
from nnunetlike.core.resources import disk_space, in_words, total_memory
from nnunetlike.core.serialization import save_pickle_with_twin
from nnunetlike.data.bricks import has_blosc2, require_blosc2
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.store import ARRAY_SUFFIXES, FORMS, CaseStore, Form
from nnunetlike.experiment_planning.disk_need import disk_need
from nnunetlike.experiment_planning.extract_fingerprint import LABELS_FOLDER, extract_fingerprint
from nnunetlike.experiment_planning.planners import Planner
from nnunetlike.experiment_planning.planners.pretrained import PRETRAINED_PLANNER
from nnunetlike.experiment_planning.store_choice import Machine, choose_form, forms_that_fit
from nnunetlike.experiment_planning.summarize import (
    describe_fingerprint,
    describe_memory,
    machine_memory,
    plans_table,
)
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans, StagePlan
from nnunetlike.plans.v1 import fingerprint_to_v1, save_plans
from nnunetlike.preprocessing.pipeline import preprocess_dataset
from nnunetlike.run.command_line import CommandParser, process_count, run_command
from nnunetlike.run.dask_option import add_dask_option, executor_at
from nnunetlike.run.planner_choice import (
    VIDEO_PLANNER,
    PlannersByKind,
    asked_planners,
    planners_for,
    require_kind_of_planner,
)
from nnunetlike.run.task_splits import FOLDS, write_splits


@dataclass(frozen=True, kw_only=True)
class _Task:
    """Folders of one task."""

    name: str
    raw: Path
    cropped: Path
    preprocessed: Path
    has_videos: bool


@dataclass(frozen=True, kw_only=True)
class _Crew:
    """Who computes cases."""

    low: Workers
    """Of the low resolution."""

    full: Workers
    """Of everything else."""


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_plan_and_preprocess",
        description="Crops the cases of raw tasks, measures them, plans networks for them and "
        "writes preprocessed cases. Cases that were cropped before are cropped again only if their "
        "files have changed.",
        examples=("nnUNet_plan_and_preprocess -t 4 --verify_dataset_integrity",),
    )
    parser.add_argument(
        "-t", "--task_ids", nargs="+", required=True, help="numbers or names of tasks: 4 505"
    )
    parser.add_argument(
        "-pl3d",
        "--planner3d",
        default="ExperimentPlanner3D_v21",
        help="3D planner; None plans no 3D network",
    )
    parser.add_argument(
        "-pl2d",
        "--planner2d",
        default="ExperimentPlanner2D_v21",
        help="2D planner; None plans no 2D network",
    )
    parser.add_argument(
        "-plv",
        "--planner_video",
        help=f"planner of tasks whose cases are videos ({VIDEO_PLANNER}), for which -pl3d and "
        "-pl2d count for nothing",
    )
    parser.add_argument(
        "--gpu_mem",
        type=float,
        metavar="GB",
        help="plan for a GPU of this size instead of the planner's own (8); the plans are then "
        "called nnUNetPlansv2.1_fit6GB, for example, and trained with -p",
    )
    parser.add_argument("-no_pp", action="store_true", help="plan only, do not preprocess")
    parser.add_argument(
        "--store",
        choices=("auto", *FORMS),
        default="auto",
        help="what preprocessed cases are stored as: npz (compressed, what nnU-Net v1 reads; "
        "training unpacks it), npy (memory-mapped), blosc2 (compressed, read by parts; needs "
        'pip install "nnunetlike[blosc2]"), fp16 (as npy, half the size, rounds images). auto: as '
        "the cases that are there; else npz for little data, npy, or blosc2 where memory or disk "
        "are too small for that",
    )
    _add_working_options(parser)
    parser.add_argument(
        "--verify_dataset_integrity",
        action="store_true",
        help="examine the raw tasks first, as nnUNet_verify_dataset does",
    )
    _add_taken_over_plans(parser)
    return parser


def _add_taken_over_plans(parser: CommandParser) -> None:
    """Add the plans of another data set."""
    parser.add_argument(
        "-overwrite_plans",
        type=Path,
        metavar="FILE",
        help=f"plans of another data set to take over; needs -pl3d {PRETRAINED_PLANNER}",
    )
    parser.add_argument(
        "-overwrite_plans_identifier", metavar="NAME", help="name for the plans taken over"
    )


def _add_working_options(parser: CommandParser) -> None:
    """Add who does the work, and how cases are split into folds."""
    processes = default_processes()
    parser.add_argument(
        "-tl",
        type=process_count,
        default=processes,
        help="processes for the low resolution; 0 works in this one",
    )
    parser.add_argument(
        "-tf",
        type=process_count,
        default=processes,
        help="processes for cropping, the full resolution and 2D",
    )
    add_dask_option(parser, "-tl and -tf")
    parser.add_argument(
        "--folds", type=int, default=FOLDS, metavar="K", help="number of folds to split into"
    )
    parser.add_argument(
        "--group_by",
        metavar="REGEX|CSV",
        help="cases that never lie on both sides of a fold: those whose IDs have the same match "
        "of a regular expression, such as '^patient_[0-9]+', or the same group in a file ID,GROUP",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(plan_and_preprocess, build_parser, argv)


def plan_and_preprocess(args: argparse.Namespace) -> None:
    """Plan and preprocess all tasks named on the command line."""
    if args.folds < 2:
        raise UsageError(f"--folds is {args.folds}; a cross-validation has two folds or more")
    planners = asked_planners(args)
    if args.store == "blosc2":
        require_blosc2("--store blosc2")
    tasks = [_task(text) for text in args.task_ids]
    for task in tasks:
        require_kind_of_planner(task.name, args.planner_video, videos=task.has_videos)
    with executor_at(args.dask) as cluster:
        workers = _Crew(low=cluster or args.tl, full=cluster or args.tf)
        if args.verify_dataset_integrity:
            _verify(tasks, processes=workers.full)
        for task in tasks:
            _run_task(task, planners, args, workers)


def _verify(tasks: Sequence[_Task], *, processes: Workers) -> None:
    """Print what is wrong with the raw tasks, as nnUNet_verify_dataset does.

    Raises:
        DataError: a task has errors.
    """
    # Imported where asked for: SciPy, which mends files, takes long.
    from nnunetlike.data.doctor.examination import examine_task, refuse
    from nnunetlike.data.doctor.report import report_text

    examinations = []
    for task in tasks:
        print(f"{task.name}: checking the raw data")
        examinations.append(examine_task(task.raw, processes=processes))
        print(report_text(examinations[-1]))
    refuse(examinations)


def _task(text: str) -> _Task:
    name = task_name(text)
    raw = raw_data() / name
    if not (raw / "dataset.json").is_file():
        raise DataError(
            f"{raw / 'dataset.json'} does not exist. Put the raw task there, or convert it with "
            "nnUNet_convert_decathlon_task"
        )
    return _Task(
        name=name,
        raw=raw,
        cropped=cropped_data() / name,
        preprocessed=preprocessed() / name,
        has_videos=DatasetSpec.load(raw / "dataset.json").video is not None,
    )


def _run_task(
    task: _Task, planners: PlannersByKind, args: argparse.Namespace, workers: _Crew
) -> None:
    task.preprocessed.mkdir(parents=True, exist_ok=True)
    with using(task.preprocessed):
        _plan_and_preprocess(task, planners, args, workers)


def _plan_and_preprocess(
    task: _Task, planners: PlannersByKind, args: argparse.Namespace, workers: _Crew
) -> None:
    _check_room_to_crop(task)
    print(f"{task.name}: cropping and measuring")
    fingerprint = extract_fingerprint(task.raw, task.cropped, processes=workers.full)
    cropped = CaseStore(task.cropped)
    labels_of = {case: cropped.record(case).classes for case in fingerprint.video_of}
    print(f"{task.name}: found\n{describe_fingerprint(fingerprint, labels_of or None)}")
    save_pickle_with_twin(
        fingerprint_to_v1(fingerprint), task.preprocessed / "dataset_properties.pkl"
    )
    shutil.copyfile(task.raw / "dataset.json", task.preprocessed / "dataset.json")
    _copy_labels(task)
    write_splits(
        task.name,
        task.preprocessed / "splits_final.pkl",
        list(fingerprint.size_reductions),
        folds=args.folds,
        group_by=args.group_by,
        videos=fingerprint.video_of if task.has_videos else None,
    )
    planned = [
        _write_plans(task, planner, dimension, fingerprint)
        for dimension, planner in planners_for(task.name, planners, fingerprint).items()
        if planner is not None
    ]
    asked = None if args.store == "auto" else args.store
    form = _choose_form(task, planned, asked, preprocess=not args.no_pp)
    if not args.no_pp:
        _preprocess(task, planned, fingerprint, workers, form)


def _copy_labels(task: _Task) -> None:
    """Copy the labels, without those of cases that dataset.json lists no more."""
    target = task.preprocessed / LABELS_FOLDER
    if target.is_dir():
        shutil.rmtree(target)
    shutil.copytree(task.cropped / LABELS_FOLDER, target)


def _write_plans(task: _Task, planner: Planner, dimension: str, fingerprint: Fingerprint) -> Plans:
    plans = planner.plan(fingerprint)
    if any(_kind(stage) != dimension for stage in plans.stages.values()):
        raise UsageError(
            f"the planner of {planner.plans_identifier} does not plan in {dimension}; give it with "
            f"{'-pl2d' if dimension == '3D' else '-pl3d'}"
        )
    plans = replace(
        plans,
        case_files=tuple(str(task.cropped / f"{c}.npz") for c in fingerprint.size_reductions),
        preprocessed_folder=str(task.preprocessed),
    )
    path = task.preprocessed / f"{planner.plans_identifier}_plans_{dimension}.pkl"
    save_plans(plans, path)
    print(f"{task.name}: decided in {dimension}, {path.name}\n{plans_table(plans)}")
    print(describe_memory(plans, machine_memory()))
    return plans


def _kind(stage: StagePlan) -> str:
    """Return how a plans file with such a stage ends: `2D`, `3D` or `video2D`."""
    return f"{'' if stage.video is None else 'video'}{stage.dimension}D"


def _check_room_to_crop(task: _Task) -> None:
    """Do nothing if the disk has room for the cropped cases, of which some may be there already.

    Raises:
        ResourceError: it does not hold even what the raw files take.
    """
    raw = sum(
        path.stat().st_size
        for folder in ("imagesTr", "labelsTr")
        for path in (task.raw / folder).glob("*")
    )
    there = sum(path.stat().st_size for path in task.cropped.glob("*.npz"))
    require_space(
        task.cropped, raw - there, f"{task.name}: cropping", "use another disk for cropped cases"
    )


def _choose_form(
    task: _Task, planned: Sequence[Plans], asked: Form | None, *, preprocess: bool
) -> Form:
    """Return what to store the preprocessed cases as, after saying what they take and why.

    Raises:
        ResourceError: they are to be written and the disk has no room for them.
    """
    need = disk_need(planned, CaseStore(task.cropped))
    stores = [
        CaseStore(task.preprocessed / plans.stage_folder(stage))
        for plans in planned
        for stage in plans.stages
    ]
    replaced = sum(map(_array_bytes, stores))
    machine = Machine(
        disk=disk_space(task.preprocessed).free + replaced,
        memory=total_memory(),
        has_blosc2=has_blosc2(),
    )
    choice = choose_form(asked, {form for store in stores for form in _forms(store)}, need, machine)
    print(
        f"{task.name}: preprocessed cases take about {in_words(need.of(choice.form))} of "
        f"{in_words(machine.disk)} that are free, stored as {choice.form} ({choice.reason})"
    )

    def remedy() -> str:
        """Return what else to do; other forms are only looked at if that is needed."""
        others = forms_that_fit(need, machine)
        return f"take {others}" if others else "plan fewer configurations (-pl2d None, -pl3d None)"

    if preprocess:
        missing = need.of(choice.form) - replaced
        require_space(task.preprocessed, missing, f"{task.name}: preprocessing", remedy)
    if choice.form == "npz" and need.packed() + need.unpacked > machine.disk:
        print(
            f"warning: training cannot unpack all of them, into {in_words(need.unpacked)} more; "
            "free some space, take --store blosc2, or train with --use_compressed_data, which is "
            "slower"
        )
    return choice.form


def _forms(store: CaseStore) -> Iterator[Form]:
    """Yield the form of each case that is there and not damaged."""
    for case in store.case_ids():
        with suppress(DataError):  # the journal says what is damaged
            yield store.form_of(case)


def _array_bytes(store: CaseStore) -> int:
    """Return the bytes of an earlier run's arrays, which will stay or be written anew."""
    return sum(
        path.stat().st_size for suffix in ARRAY_SUFFIXES for path in store.folder.glob(f"*{suffix}")
    )


def _preprocess(
    task: _Task, planned: Sequence[Plans], fingerprint: Fingerprint, workers: _Crew, form: Form
) -> None:
    preprocess_dataset(
        planned,
        CaseStore(task.cropped),
        task.preprocessed,
        list(fingerprint.size_reductions),
        processes=lambda plans, stage: workers.full if stage == max(plans.stages) else workers.low,
        form=form,
    )
    for plans in planned:
        folders = ", ".join(plans.stage_folder(stage) for stage in plans.stages)
        cases = len(fingerprint.sizes)
        print(f"{task.name}: {cases} case{'s are' if cases > 1 else ' is'} in {folders}")


if __name__ == "__main__":
    raise SystemExit(main())
