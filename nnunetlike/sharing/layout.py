"""Where the files of shared models lie: v1's paths below `RESULTS_FOLDER/nnUNet`.

A *place* is the folder of one model, `CONFIGURATION/TASK/TRAINER__PLANS`, or that of one ensemble,
`ensembles/TASK/ensemble_MODEL--MODEL`. Every file of a shared zip lies in a place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from nnunetlike.core.paths import CONFIGURATIONS

ENSEMBLES = "ensembles"
MANIFEST = "nnunetlike_manifest.json"
PLANS = "plans.pkl"
POSTPROCESSING = "postprocessing.json"
SUFFIXES = (".model", ".pkl", ".json", ".png", ".pdf", ".txt", ".csv")
"""What files of a model end in; no other file is taken from a zip."""

CASCADE = "3d_cascade_fullres"
TASK = re.compile(r"(Task|Dataset)\d+_.+")
MODEL = re.compile(r".+__.+")
LEAST_DEEP, DEEPEST = 4, 7
"""Components of a path: a fold may have folders of summaries."""

DEFAULT_CHECKPOINT = "model_final_checkpoint"


@dataclass(frozen=True, order=True)
class Place:
    """The folder of one model or ensemble."""

    configuration: str
    """One of nnU-Net's configurations, or `ensembles`."""

    task: str
    name: str
    """`TRAINER__PLANS`, or the name of the ensemble."""

    @property
    def path(self) -> PurePosixPath:
        """Path below `RESULTS_FOLDER/nnUNet`."""
        return PurePosixPath(self.configuration, self.task, self.name)

    @property
    def is_ensemble(self) -> bool:
        """Whether this is an ensemble, which has no weights of its own."""
        return self.configuration == ENSEMBLES

    def folder(self, results: Path) -> Path:
        """Return the folder below that of the results."""
        return results / self.path

    def __str__(self) -> str:
        return str(self.path)


def place_of(name: str) -> Place | None:
    """Return the place that a file of a zip belongs to, or None where v1 would have none.

    Args:
        name: path within the zip, components divided by `/`.
    """
    parts = name.split("/")
    if not LEAST_DEEP <= len(parts) <= DEEPEST or not parts[-1].endswith(SUFFIXES):
        return None
    configuration, task, model = parts[:3]
    if configuration not in (*CONFIGURATIONS, ENSEMBLES) or not TASK.fullmatch(task):
        return None
    if configuration == ENSEMBLES:
        return Place(*parts[:3]) if parts[3:] == [POSTPROCESSING] else None
    return Place(*parts[:3]) if MODEL.fullmatch(model) else None


def folds_of(place: Place, names: Iterable[str]) -> tuple[str, ...]:
    """Return the folds of a place of which there is a checkpoint, sorted.

    Args:
        place: of a model.
        names: paths of files within the zip.
    """
    checkpoints = (PurePosixPath(name) for name in names if name.endswith(".model"))
    return tuple(sorted({p.parent.name for p in checkpoints if p.parent.parent == place.path}))


def predict_command(place: Place, names: Iterable[str]) -> str:
    """Return the command that predicts with a model.

    Args:
        place: of a model.
        names: paths of its files within the zip.
    """
    names = list(names)
    trainer, _, plans = place.name.partition("__")
    option = "-ctr" if place.configuration == CASCADE else "-tr"
    words = [
        "nnUNet_predict -i INPUT_FOLDER -o OUTPUT_FOLDER",
        f"-t {place.task} -m {place.configuration} {option} {trainer} -p {plans}",
    ]
    if folds_of(place, names) == ("all",):
        words.append("-f all")
    checkpoints = sorted({PurePosixPath(name).stem for name in names if name.endswith(".model")})
    if checkpoints and DEFAULT_CHECKPOINT not in checkpoints:
        words.append(f"-chk {checkpoints[0]}")
    return " ".join(words)
