"""Memory that training needs: the estimate before, and what to do when it ran out all the same."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from nnunetlike.core.errors import NnunetlikeError, ResourceError
from nnunetlike.core.resources import in_words
from nnunetlike.core.system_errors import is_out_of_memory
from nnunetlike.experiment_planning.planners import fitted
from nnunetlike.experiment_planning.planners.memory_rules import REFERENCE_GB
from nnunetlike.networks import NETWORKS
from nnunetlike.networks.memory import training_bytes
from nnunetlike.run.fold import Fold
from nnunetlike.training.augmentation.policies import policy_for
from nnunetlike.training.device_augmentation.batches import device_bytes
from nnunetlike.training.runtime import Precision, Runtime, free_memory

logger = logging.getLogger(__name__)
SHARE = 0.9
"""Share of the free memory that an estimate may take: workspaces and fragmentation come on top."""

SMALLER_PLANNERS = {
    "nnUNetPlansv2.1_verybig": ("ExperimentPlanner3D_v21_16GB", "nnUNetPlansv2.1_16GB"),
    "nnUNetPlansv2.1_16GB": ("ExperimentPlanner3D_v21_11GB", "nnUNetPlansv2.1_big"),
    "nnUNetPlansv2.1_big": ("ExperimentPlanner3D_v21", "nnUNetPlansv2.1"),
}
"""Planner with the next smaller budget, and the identifier of its plans, by plans identifier."""

FOR_UNET_PLUS_PLUS = ("ExperimentPlanner3D_UNetPlusPlus", "nnUNetPlansUNetPlusPlus")
PLANNERS_OF = {
    "nnUNetPlansv2.1": "ExperimentPlanner3D_v21",
    "nnUNetPlansUNetPlusPlus": FOR_UNET_PLUS_PLUS[0],
}
"""3D planner by its plans, without what `--gpu_mem` adds to their name."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """What a fold's training needs, and what is there."""

    fold: Fold
    precision: Precision
    device: str
    needed: int
    """Estimate in bytes, a lower bound."""

    free: int | None
    """Bytes free before training; None where the system does not tell."""

    parameters: int

    @classmethod
    def of(cls, fold: Fold, runtime: Runtime, parameters: int) -> MemoryNeed:
        """Return the need of a fold on the runtime's device."""
        return cls(
            fold=fold,
            precision=runtime.precision,
            device=str(runtime.device),
            needed=estimate(fold, runtime.precision, fold.share.samples),
            free=free_memory(runtime.device),
            parameters=parameters,
        )

    @property
    def network(self) -> str:
        """Registered name of the network."""
        return NETWORKS.name_of(type(self.fold.run.recipe.network))

    @property
    def what(self) -> str:
        """Patch, batch, network and precision in words."""
        stage = self.fold.stage
        size = " x ".join(map(str, stage.input_size))
        return (
            f"{'clip' if stage.video else 'patch'} {size}, batch {self.fold.share.samples}, "
            f"{self.network} of {self.parameters / 1e6:.1f} million parameters in "
            f"{self.precision}"
        )

    def remedy(self) -> str:
        """Return what would fit, and the command to plan again."""
        batch = self._batch_that_fits()
        smaller = (
            f"--batch_size {batch} would fit by the estimate. "
            if batch
            else ("No batch fits by the estimate. " if self.free is not None else "")
        )
        return f"{smaller}{self._replan()}"

    def _batch_that_fits(self) -> int | None:
        if self.free is None:
            return None
        room = SHARE * self.free
        sizes = range(self.fold.share.samples - 1, 0, -1)
        return next((n for n in sizes if estimate(self.fold, self.precision, n) <= room), None)

    def _replan(self) -> str:
        run = self.fold.run
        known = SMALLER_PLANNERS.get(run.plans_identifier)
        if NETWORKS.name_of(
            type(run.recipe.network)
        ) == "unet_plus_plus" and run.plans_identifier not in (
            *SMALLER_PLANNERS,
            FOR_UNET_PLUS_PLUS[1],
        ):
            known = FOR_UNET_PLUS_PLUS
        if known is None or self.fold.stage.dimension == 2:
            return self._plan_for_what_is_free()
        planner, identifier = known
        return (
            f"Or plan again: nnUNet_plan_and_preprocess -t {run.task} -pl3d {planner} -pl2d None, "
            f"then train with -p {identifier}"
        )

    def _plan_for_what_is_free(self) -> str:
        """Return the command that plans for the memory there is, where that is less than before."""
        run, stage = self.fold.run, self.fold.stage
        is_flat = stage.dimension == 2
        values = 2 if self.precision == "fp32" else 1
        gigabytes = math.floor(SHARE * (self.free or 0) / 10**9 / values)
        identifier, _, size = run.plans_identifier.partition("_fit")
        planner = PLANNERS_OF.get(identifier)
        if planner is None or not 1 <= gigabytes < float(size.removesuffix("GB") or REFERENCE_GB):
            return "No planner asks for less: use a smaller --batch_size or --base_num_features" + (
                "" if is_flat else ", or train 2d"
            )
        which = " -pl3d None" if is_flat else f" -pl3d {planner} -pl2d None"
        return (
            f"Or plan again: nnUNet_plan_and_preprocess -t {run.task} --gpu_mem {gigabytes}"
            f"{'' if stage.video else which}, then train with -p {fitted(identifier, gigabytes)}"
        )


def estimate(fold: Fold, precision: Precision, batch_size: int) -> int:
    """Return the bytes that a training step of a fold needs at least, with augmentation there."""
    step = training_bytes(
        fold.run.recipe.network,
        fold.network_task,
        fold.stage.input_size,
        batch_size,
        bytes_per_value=4 if precision == "fp32" else 2,
    )
    if fold.run.augment_on == "cpu":
        return step
    patch, channels = fold.stage.input_size, fold.network_task.channels
    read = policy_for(fold.stage).generator_patch_size(patch)
    return step + device_bytes(channels, read, patch, batch_size)


def require_memory(need: MemoryNeed, *, ignore: bool) -> None:
    """Say what is needed and free; stop before step 1 if it cannot be enough.

    The estimate is a lower bound, so a need above what is free does fail.

    Raises:
        ResourceError: too little is free, and that is not to be ignored.
    """
    if need.free is None:
        logger.info("memory: about %s needed, free is unknown", in_words(need.needed))
        return
    text = f"about {in_words(need.needed)} needed, {in_words(need.free)} free on {need.device}"
    if need.needed <= need.free:
        close = need.needed > SHARE * need.free
        logger.log(
            logging.WARNING if close else logging.INFO,
            "memory: %s%s",
            text,
            ", which may be too little" if close else "",
        )
        return
    problem = f"too little memory to train: {text} ({need.what}). {need.remedy()}"
    if not ignore:
        raise ResourceError(f"{problem}. --ignore_memory_estimate tries it all the same")
    logger.warning("%s", problem)


@contextmanager
def memory_errors_explained(need: MemoryNeed) -> Iterator[None]:
    """Raise a lack of memory in this block, of device or host, as an error that says what to do.

    Raises:
        ResourceError: memory ran out.
    """
    try:
        yield
    except NnunetlikeError:
        raise
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error) and "ALLOC_FAILED" not in str(error):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    else:
        return
    raise ResourceError(  # outside the handler, whose traceback holds the tensors of the step
        f"memory ran out on {need.device} ({reason}). Training needs at least "
        f"{in_words(need.needed)}: {need.what}; "
        f"{'unknown' if need.free is None else in_words(need.free)} was free. {need.remedy()}"
    )
