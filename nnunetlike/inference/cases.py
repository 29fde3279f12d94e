"""Cases to predict: found in a folder by the names of their files, and made ready for a network.

Worker processes import this module, so it does without torch.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunetlike.core.errors import DataError, ShapeError
from nnunetlike.core.typing import FloatArray
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.imageio import (
    ending_in,
    format_of,
    label_ending,
    split_ending,
)
from nnunetlike.data.previous_stage import one_hot
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.video import VideoFacts
from nnunetlike.inference.familiarity import warn_if_unfamiliar
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.label_resampling import resample_label
from nnunetlike.preprocessing.preprocessor import Preprocessor, read_and_crop

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")
"""Suffixes that are no images beside volumes, but what people drew of them."""

SHOWN = 3
"""How many of the names that do not fit a message shows."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InputCase:
    """A case to predict and the suffix its prediction gets.

    That is the suffix of its images, but `.png` for JPEG, which would change the labels.
    """

    files: CaseFiles
    suffix: str
    facts: VideoFacts | None = None
    """Of a video, as its sidecar states them; `files.video` holds how it is read."""

    previous: Path | None = None
    """Label file by the low resolution of a cascade, on the grid of the image."""

    @property
    def case_id(self) -> str:
        """Identifier, the file name without channel and suffix."""
        return self.files.case_id


@dataclass(frozen=True)
class PrepareCase:
    """Reads, crops, resamples and normalises a case, for one stage of the plans."""

    plans: Plans
    stage: int

    def __call__(self, case: InputCase) -> tuple[FloatArray, CaseRecord]:
        """Return the image (C, d, h, w) float32 for the network and what was done to it.

        Raises:
            DataError: a file cannot be read or the case is empty.
        """
        cropped, record = read_and_crop(case.files)
        prepared = Preprocessor(self.plans, self.stage).apply(cropped, record, sample_classes=False)
        warn_if_unfamiliar(case.case_id, self.plans, cropped.image, prepared.record)
        if case.previous is None:
            return prepared.image, prepared.record
        known = self._known_before(case.previous, prepared.record, prepared.image.shape[1:])
        return np.concatenate([prepared.image, known]), prepared.record

    def _known_before(self, path: Path, record: CaseRecord, shape: Sequence[int]) -> FloatArray:
        """Return what the low resolution has found as channels on the network's grid.

        nnU-Net v1 stretches the label map of the whole file onto the grid of the cropped image.
        Here it is cropped as the image was; both agree where nothing is cropped away.
        """
        label, _ = format_of(path).read_label(path)
        if label.shape != record.original_size:
            raise ShapeError(
                f"{path} has {label.shape} voxels (D, H, W), but its image {record.original_size}. "
                "Predict it again with 3d_lowres"
            )
        window = tuple(slice(*side) for side in record.crop_box)
        cropped = record.turn.apply(label[window]).transpose(self.plans.transpose_forward)
        label = resample_label(np.ascontiguousarray(cropped), shape, order=1)
        return one_hot(label, self.plans.classes)


def find_cases(folder: Path, modalities: Mapping[int, str]) -> list[InputCase]:
    """Return the cases of a folder, sorted by identifier.

    A case `ID` consists of `ID_0000.nii.gz`, `ID_0001.nii.gz`, ..., one file per channel, or of one
    colour picture `ID_0000.png`. Where one file is all a case needs and no file of the folder has a
    channel number 0000, names without one are taken too, and a note says so.

    Args:
        folder: images; files that no image format knows are ignored, and so are pictures beside
            volumes.
        modalities: names of the channels the model was trained on, by number.

    Raises:
        DataError: the folder is missing or holds no case, a file has no channel number, or cases
            lack channels; all of them are named.
    """
    if not folder.is_dir():
        raise DataError(f"the input folder {folder} does not exist")
    found, unnumbered = _by_case(folder)
    alone = [p for p in _images(folder) if len(modalities) == 1 or format_of(p).multichannel]
    if alone and not any(0 in channels for channels in found.values()):
        logger.info(
            "note: names such as %s have no channel number (_0000); each file is taken for a case",
            alone[0].name,
        )
        found = {split_ending(path.name): {0: path} for path in alone}
        unnumbered = [path for path in unnumbered if path not in alone]
    faults = _without_number(unnumbered)
    cases = []
    for (case_id, suffix), channels in sorted(found.items()):
        missing = _missing(channels, modalities)
        if missing:
            present = ", ".join(path.name for path in channels.values())
            lacking = ", ".join(f"{case_id}_{c:04d}{suffix} ({modalities[c]})" for c in missing)
            faults.append(f"{case_id}: {lacking} is missing; found {present}")
            continue
        cases.append(_case(case_id, suffix, channels, modalities))
    return _checked(cases, faults, folder, modalities)


def after_low_resolution(cases: Sequence[InputCase], folder: Path) -> list[InputCase]:
    """Return cases with the label files of a folder, in which the low resolution predicted them.

    Raises:
        DataError: some are missing; they are named.
    """
    found = [replace(case, previous=folder / f"{case.case_id}{case.suffix}") for case in cases]
    missing = [case.case_id for case in found if case.previous and not case.previous.is_file()]
    if missing:
        raise DataError(
            f"{folder} lacks the predictions of {', '.join(missing)}, which the second stage of a "
            "cascade needs. Predict them with -m 3d_lowres, or leave out -l to have that done"
        )
    return found


def tell_orientations(cases: Sequence[InputCase], trained: str | None) -> None:
    """Say how many cases are stored otherwise than the training cases, by their headers.

    Args:
        cases: to predict.
        trained: orientation of the training cases; None says nothing.
    """
    if trained is None:
        return
    files = [case.files.images[0] for case in cases]
    found = Counter(format_of(path).orientation(path) for path in files)
    same, unknown = found.pop(trained, 0), found.pop(None, 0)
    others = ", ".join(f"{count} {letters}" for letters, count in found.most_common())
    for count, text in (
        (same, f"are stored in the orientation of the training cases ({trained})"),
        (unknown, "do not say how they are oriented, and are taken as stored"),
        (
            found.total(),
            f"are stored in another orientation than the training cases ({trained}): {others}. "
            "They are turned for the network and their predictions turned back",
        ),
    ):
        if count:
            logger.info("%d of %d cases %s", count, len(cases), text)


def _images(folder: Path) -> list[Path]:
    """Return the image files of a folder, without pictures if there are volumes."""
    images = [
        path
        for path in sorted(folder.iterdir())
        if split_ending(path.name)[1] and not path.name.startswith(".")
    ]
    volumes = [path for path in images if not path.name.lower().endswith(PICTURES)]
    if volumes and len(volumes) < len(images):
        logger.info(
            "%d pictures beside the volumes in %s are not read", len(images) - len(volumes), folder
        )
    return volumes or images


def _by_case(folder: Path) -> tuple[dict[tuple[str, str], dict[int, Path]], list[Path]]:
    """Return channel files by (identifier, suffix), and files without a channel number."""
    found: dict[tuple[str, str], dict[int, Path]] = defaultdict(dict)
    unnumbered = []
    for path in _images(folder):
        stem, suffix = split_ending(path.name)
        numbered = re.fullmatch(r"(.+)_(\d{4})", stem)
        if numbered is None:
            unnumbered.append(path)
        else:
            found[numbered[1], suffix][int(numbered[2])] = path
    return found, unnumbered


def _without_number(unnumbered: list[Path]) -> list[str]:
    """Return what to say of files without a channel number: the first few names."""
    if not unnumbered:
        return []
    names = ", ".join(path.name for path in unnumbered[:SHOWN])
    more = f" and {len(unnumbered) - SHOWN} more" if len(unnumbered) > SHOWN else ""
    return [f"{names}{more} {'has' if len(unnumbered) == 1 else 'have'} no channel number"]


def _missing(channels: Mapping[int, Path], modalities: Mapping[int, str]) -> list[int]:
    """Return the channels a case lacks; one picture may hold them all."""
    if list(channels) == [0] and format_of(channels[0]).multichannel:
        return []
    return [c for c in modalities if c not in channels]


def _case(
    case_id: str, suffix: str, channels: Mapping[int, Path], modalities: Mapping[int, str]
) -> InputCase:
    for channel in sorted(set(channels) - set(modalities)):
        logger.info("%s is not used by this model", channels[channel].name)
    files = CaseFiles(
        case_id=case_id,
        images=tuple(channels[c] for c in sorted(modalities) if c in channels),
        channels=len(modalities),
    )
    return InputCase(files=files, suffix=label_ending(suffix))


def _checked(
    cases: list[InputCase], faults: list[str], folder: Path, modalities: Mapping[int, str]
) -> list[InputCase]:
    ids = [case.case_id for case in cases]
    faults += [
        f"{i} exists with two suffixes" for i in sorted({i for i in ids if ids.count(i) > 1})
    ]
    ending = ending_in(folder)
    pattern = ", ".join(f"ID_{c:04d}{ending} ({name})" for c, name in sorted(modalities.items()))
    if faults:
        raise DataError(
            f"{folder} does not hold what this model needs, per case {pattern}: {'; '.join(faults)}"
        )
    if not cases:
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:SHOWN]) or "nothing"
        raise DataError(f"{folder} holds no case; expected per case {pattern}; found {names}")
    return cases
