"""One fold of one model: what was asked for, and what it comes to on this machine's folders."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from nnunetlike.core import paths
from nnunetlike.core.disk import require_space
from nnunetlike.core.errors import DataError
from nnunetlike.core.folders import visible_files
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.parallel import default_processes, process_map
from nnunetlike.core.team import ALONE, Team
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.imageio import ending_in
from nnunetlike.data.previous_stage import FOLDER, PreviousStage
from nnunetlike.data.splits import Split, load_splits, make_splits, save_splits, split_for
from nnunetlike.data.store import CaseStore
from nnunetlike.data.video import VideoFacts
from nnunetlike.data.video_splits import (
    make_video_splits,
    official_split,
    require_whole_patients,
    video_split_for,
)
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.model_files import describe_network
from nnunetlike.networks.transfer import LEAST_SHARE
from nnunetlike.plans.plans import Plans, StagePlan
from nnunetlike.plans.v1 import load_plans, plans_to_v1
from nnunetlike.run.trainer_use import require_data_of_its_kind, require_patches_alone
from nnunetlike.training.batch_share import BatchShare, share_of_batch, split_batch
from nnunetlike.training.compiling import Wish
from nnunetlike.training.recipe import TrainerRecipe


@dataclass(frozen=True, kw_only=True)
class FoldRun:
    """What a user asks for; the recipe already holds the options that change it."""

    recipe: TrainerRecipe
    configuration: str
    task: str
    fold: int | str
    plans_identifier: str
    seed: int
    seed_is_asked: bool = False
    """The user gave the seed, which must then be that of the training that goes on."""

    deterministic: bool = False
    fp32: bool = False
    workers: int = 0
    """Processes that make training batches; 0 makes them in this process."""

    augment_on: Literal["cpu", "device"] = "cpu"
    """Who augments training batches: the processes that read them, or the device that trains."""

    use_compressed_data: bool = False
    keep_checkpoints: bool = True
    """Save best and final; latest is saved while training lasts in any case."""

    continue_training: bool = False
    early_stopping: int | None = None
    """Epochs without a better validation average after which training ends; None: never."""

    compile: Wish = "auto"
    """Whether torch.compile makes the network's code."""

    ignore_memory_estimate: bool = False
    """Train even if the memory cannot suffice by the estimate."""

    pretrained_weights: Path | None = None
    pretrained_share: float = LEAST_SHARE
    """Share of the network's parameters that must start from the pretrained weights."""

    freeze: Literal["encoder"] | None = None
    """Part of the network that takes no gradient."""

    val_folder: str = "validation_raw"
    save_npz: bool = False
    overwrite_validation: bool = True
    infer_validation: bool = True
    postprocess: bool = True
    checkpoint: str | None = None
    """Weights to validate: final, latest, best, or a file; None takes the first there is."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A run with its plans, cases and folders."""

    run: FoldRun
    plans: Plans
    """With the run's batch size and features."""

    plans_file: Path
    stage_number: int
    split: Split
    store: CaseStore
    dataset: Path
    """Preprocessed task."""

    model_folder: Path
    share: BatchShare
    """What this process makes of each batch."""

    previous: PreviousStage | None = None
    """What the low resolution of a cascade has found."""

    notes: tuple[str, ...] = ()
    """What the user should know about the split and the batch."""

    @property
    def folder(self) -> Path:
        """Folder of the fold, in which everything is written."""
        return self.model_folder / paths.fold_name(self.run.fold)

    @property
    def stage(self) -> StagePlan:
        """Plan of the resolution to train on."""
        return self.plans.stages[self.stage_number]

    @property
    def references(self) -> Path:
        """Folder of the labels as in the source files."""
        return self.dataset / "gt_segmentations"

    @property
    def label_names(self) -> dict[int, str]:
        """Names of the labels by value; none where dataset.json does not tell them."""
        with suppress(DataError):  # plans, not names, are what training needs
            return dict(DatasetSpec.load(self.dataset / "dataset.json").labels.names)
        return {}

    @property
    def batch_dice(self) -> bool:
        """Sum the Dice loss over the batch: 2d, or the full resolution of two.

        Source: nnU-Net v1.
        """
        configuration = self.run.configuration
        return configuration == "2d" or (
            len(self.plans.stages) > 1 and configuration != "3d_lowres"
        )

    @property
    def network_task(self) -> NetworkTask:
        """What the data ask of the network."""
        video = self.stage.video
        return NetworkTask(
            channels=self.plans.num_channels + (len(self.plans.classes) if self.previous else 0),
            classes=self.plans.num_classes,
            topology=self.stage.topology,
            base_features=self.plans.base_features,
            conv_per_stage=self.plans.conv_per_stage,
            memory_stride=NetworkTask.memory_stride if video is None else video.memory_stride,
            network_size=NetworkTask.network_size if video is None else video.network_size,
        )

    @property
    def mirror_axes(self) -> tuple[int, ...]:
        """Axes that are mirrored in training, and so may be in prediction."""
        return () if self.stage.video else tuple(range(self.stage.dimension))

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of this process's images of a batch, (B, C, *patch)."""
        return (self.share.samples, self.network_task.channels, *self.stage.input_size)

    def checkpoint_info(self) -> dict[str, Any]:
        """Return the content of `.model.pkl`: v1's four entries, then what describes itself."""
        run = self.run
        trainer = run.recipe.name
        begin = (str(self.plans_file), run.fold)
        middle = (
            str(self.model_folder),
            str(self.dataset),
            self.batch_dice,
            self.stage_number,
            not run.use_compressed_data,
            run.deterministic,
        )
        previous = run.recipe.previous_trainer
        end = (*(() if previous is None else (previous,)), not run.fp32)
        shared = run.recipe.batch_per_process == "shared"
        is_ddp = trainer.endswith("DDP")  # v1's classes of that name take the rank and `--dbs` too
        return {
            "init": (*begin, 0, *middle, shared, *end) if is_ddp else (*begin, *middle, *end),
            "name": trainer,
            "class": f"<nnunetlike trainer '{trainer}'>",
            "plans": plans_to_v1(self.plans),
            "network": describe_network(run.recipe.network, self.network_task),
            "configuration": run.configuration,
            "trainer": trainer,
            "mirror_axes": list(self.mirror_axes),
            "strategy": run.recipe.network.strategy,
            "labels": self.label_names,
        }


def resolve(run: FoldRun, team: Team = ALONE) -> Fold:
    """Return a run with its plans, cases and folders; `splits_final.pkl` is made if missing.

    Args:
        run: what is asked for.
        team: the processes that train together.

    Raises:
        UsageError: the configuration does not exist for this task, or not yet.
        DataError: plans or preprocessed cases are missing; all missing cases are named.
    """
    require_data_of_its_kind(run.recipe, run.configuration)
    require_patches_alone(run.recipe, run.augment_on)
    plans_file = paths.plans_file(run.task, run.configuration, run.plans_identifier)
    plans = load_plans(plans_file)
    number = plans.stage_number(run.configuration)
    video = plans.stages[number].video
    if video is not None:
        run = replace(run, recipe=run.recipe.for_network_size(video.network_size))
    dataset = paths.preprocessed() / run.task
    store = CaseStore(dataset / plans.stage_folder(number))
    split, notes = _split(run.fold, dataset, store, plans.fingerprint.video_of)
    _require_cases(store, split)
    model_folder = paths.model_folder(
        run.configuration, run.task, run.recipe.name, run.plans_identifier
    )
    plans = _with_options(plans, number, run.recipe)
    planned = plans.stages[number].batch_size
    shared = run.recipe.batch_per_process == "shared"
    sizes = split_batch(planned, team.world_size, shared=shared)
    return Fold(
        run=run,
        plans=plans,
        share=share_of_batch(sizes, team.rank, run.recipe.oversample),
        plans_file=plans_file,
        stage_number=number,
        split=split,
        store=store,
        dataset=dataset,
        model_folder=model_folder,
        previous=_previous_stage(run),
        notes=(*notes, *_notes_on_batch(planned, sizes, shared=shared)),
    )


def _previous_stage(run: FoldRun) -> PreviousStage | None:
    """Return where the low resolution has left its segmentations; None if this is no cascade."""
    trainer = run.recipe.previous_trainer
    if trainer is None:
        return None
    model = paths.model_folder(paths.LOW, run.task, trainer, run.plans_identifier)
    return PreviousStage(model / FOLDER)


def _notes_on_batch(planned: int, sizes: Sequence[int], *, shared: bool) -> Iterator[str]:
    total = sum(sizes)
    if total != planned and shared:
        yield (
            f"a batch of {planned} cannot be shared by {len(sizes)} processes, which need one "
            f"patch each: the batch is {total}"
        )
    elif total != planned:
        yield (
            f"each of the {len(sizes)} processes makes the planned batch of {planned}: the batch "
            f"is {total}. --dbs shares the planned batch instead"
        )


def _with_options(plans: Plans, number: int, recipe: TrainerRecipe) -> Plans:
    stage = plans.stages[number]
    changed = replace(stage, batch_size=recipe.batch_size or stage.batch_size)
    features = getattr(recipe.network, "base_features", None) or plans.base_features
    return replace(plans, stages={**plans.stages, number: changed}, base_features=features)


def _split(
    fold: int | str, dataset: Path, store: CaseStore, videos: Mapping[str, VideoFacts]
) -> tuple[Split, tuple[str, ...]]:
    case_ids = store.case_ids()
    if fold == "all":
        return split_for(fold, [], case_ids), ()
    if fold == paths.OFFICIAL:
        return official_split(videos), ()
    path = dataset / "splits_final.pkl"
    notes: list[str] = []
    if not path.is_file():
        made = make_video_splits(videos) if videos else make_splits(case_ids)
        save_splits(made, path)
        notes.append(f"{path} was missing; made a new {len(made)}-fold cross-validation split")
    splits = load_splits(path)
    if int(fold) >= len(splits):
        notes.append(
            f"fold {fold} is beyond the {len(splits)} splits of {path}; training on a random 80 % "
            f"of the cases (seed 12345 + {fold}), validating on the rest"
        )
    if not videos:
        return split_for(fold, splits, case_ids), tuple(notes)
    split = video_split_for(fold, splits, videos)
    require_whole_patients((split.train, split.val), videos, f"fold {fold} of {path}")
    return split, tuple(notes)


def _require_cases(store: CaseStore, split: Split) -> None:
    wanted = sorted({*split.train, *split.val})
    missing = [case for case in wanted if not store.holds(case)]
    if missing or not split.train:
        shown = ", ".join(missing) or "all"
        raise DataError(
            f"{store.folder} lacks {len(missing) or 'all'} case(s) of the split: {shown}. "
            f"It holds {len(store.case_ids())}: {_some(store.case_ids())}. If the names are right, "
            "preprocess again with nnUNet_plan_and_preprocess; if not, correct splits_final.pkl, "
            "or delete it to have new folds made"
        )


def _some(case_ids: Sequence[str], most: int = 3) -> str:
    return ", ".join(case_ids[:most]) + (", …" if len(case_ids) > most else "")


def unpack(fold: Fold) -> None:
    """Write the arrays of all cases that are stored as npz uncompressed beside it.

    Raises:
        ResourceError: the disk has no room for them.
    """
    cases = sorted({*fold.split.train, *fold.split.val})
    packed = [case for case in cases if not fold.store.is_unpacked(case)]
    sizes = {case: unpacked_size(fold.store.folder / f"{case}.npz") for case in packed}
    require_space(
        fold.store.folder,
        sum(sizes.values()),
        f"unpacking {len(packed)} cases",
        "train with --use_compressed_data, which is slower, or preprocess with --store blosc2",
    )
    process_map(
        fold.store.unpack,
        packed,
        processes=default_processes(),
        title="unpacking" if packed else "",
        cost=lambda case: 2 * sizes[case],
    )


def copy_references(fold: Fold) -> None:
    """Copy the labels into `gt_niftis` of the model folder, for later evaluation over folds."""
    target = fold.model_folder / "gt_niftis"
    target.mkdir(parents=True, exist_ok=True)
    for path in visible_files(fold.references, ending_in(fold.references)):
        shutil.copy2(path, target / path.name)
