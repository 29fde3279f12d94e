"""Cases to predict: found in a folder by the names of their files, and made ready for a network.

Worker processes import this module, so it does without torch.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunetlike.core.errors import DataError
from nnunetlike.core.typing import FloatArray
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.imageio import IMAGE_FORMATS
from nnunetlike.data.record import CaseRecord
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.preprocessor import Preprocessor, read_and_crop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InputCase:
    """A case to predict and the suffix its prediction gets, that of its images."""

    files: CaseFiles
    suffix: str

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
        return prepared.image, prepared.record


def find_cases(folder: Path, modalities: Mapping[int, str]) -> list[InputCase]:
    """Return the cases of a folder, sorted by identifier.

    A case `ID` consists of `ID_0000.nii.gz`, `ID_0001.nii.gz`, ..., one file per channel.

    Args:
        folder: images; files that no image format knows are ignored.
        modalities: names of the channels the model was trained on, by number.

    Raises:
        DataError: the folder is missing or holds no case, a file has no channel number, or cases
            lack channels; all of them are named.
    """
    if not folder.is_dir():
        raise DataError(f"the input folder {folder} does not exist")
    found, unnumbered = _by_case(folder)
    faults = [f"{name} has no channel number" for name in unnumbered]
    cases = []
    for (case_id, suffix), channels in sorted(found.items()):
        missing = [c for c in modalities if c not in channels]
        if missing:
            present = ", ".join(path.name for path in channels.values())
            lacking = ", ".join(f"{case_id}_{c:04d}{suffix} ({modalities[c]})" for c in missing)
            faults.append(f"{case_id}: {lacking} is missing; found {present}")
            continue
        for channel in sorted(set(channels) - set(modalities)):
            logger.info("%s is not used by this model", channels[channel].name)
        files = CaseFiles(case_id=case_id, images=tuple(channels[c] for c in sorted(modalities)))
        cases.append(InputCase(files=files, suffix=suffix))
    return _checked(cases, faults, folder, modalities)


def _by_case(folder: Path) -> tuple[dict[tuple[str, str], dict[int, Path]], list[str]]:
    """Return channel files by (identifier, suffix), and names without a channel number."""
    suffixes = {s for name in IMAGE_FORMATS.names() for s in IMAGE_FORMATS.get(name).suffixes}
    endings = "|".join(re.escape(s) for s in sorted(suffixes, key=len, reverse=True))
    found: dict[tuple[str, str], dict[int, Path]] = defaultdict(dict)
    unnumbered = []
    for path in sorted(folder.iterdir()):
        image = re.fullmatch(f"(.+?)({endings})", path.name, flags=re.IGNORECASE)
        if image is None or path.name.startswith("."):
            continue
        numbered = re.fullmatch(r"(.+)_(\d{4})", image[1])
        if numbered is None:
            unnumbered.append(path.name)
        else:
            found[numbered[1], image[2]][int(numbered[2])] = path
    return found, unnumbered


def _checked(
    cases: list[InputCase], faults: list[str], folder: Path, modalities: Mapping[int, str]
) -> list[InputCase]:
    ids = [case.case_id for case in cases]
    faults += [
        f"{i} exists with two suffixes" for i in sorted({i for i in ids if ids.count(i) > 1})
    ]
    pattern = ", ".join(f"ID_{c:04d}.nii.gz ({name})" for c, name in sorted(modalities.items()))
    if faults:
        raise DataError(
            f"{folder} does not hold what this model needs, per case {pattern}: {'; '.join(faults)}"
        )
    if not cases:
        names = ", ".join(sorted(p.name for p in folder.iterdir())[:10]) or "nothing"
        raise DataError(f"{folder} holds no case; expected per case {pattern}; found {names}")
    return cases
