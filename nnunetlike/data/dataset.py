"""dataset.json: what a task consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import load_json
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.labels import LabelSet

SUFFIX = ".nii.gz"


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """Content of a dataset.json of nnU-Net v1."""

    name: str
    modalities: Mapping[int, str]
    labels: LabelSet
    training: tuple[str, ...]
    """Case identifiers in the order of the file."""

    test: tuple[str, ...]

    @classmethod
    def load(cls, path: Path) -> DatasetSpec:
        """Return the content of a dataset.json.

        Raises:
            DataError: the file is missing, not JSON, or lacks `modality`, `labels` or `training`.
        """
        content = load_json(path)
        missing = [key for key in ("modality", "labels", "training") if key not in content]
        if missing:
            raise DataError(f"{path} lacks the entry {', '.join(map(repr, missing))}")
        return cls(
            name=str(content.get("name", path.parent.name)),
            modalities=_by_number(content["modality"], path, "modality"),
            labels=LabelSet(_by_number(content["labels"], path, "labels")),
            training=tuple(_case_id(entry["image"]) for entry in content["training"]),
            test=tuple(_case_id(_test_path(entry)) for entry in content.get("test", [])),
        )

    def training_case(self, folder: Path, case_id: str) -> CaseFiles:
        """Return the files of a training case below a raw task folder."""
        return CaseFiles(
            case_id=case_id,
            images=self.image_files(folder / "imagesTr", case_id),
            label=folder / "labelsTr" / f"{case_id}{SUFFIX}",
        )

    def image_files(self, folder: Path, case_id: str) -> tuple[Path, ...]:
        """Return a case's image paths in `folder`, one per channel."""
        return tuple(folder / f"{case_id}_{channel:04d}{SUFFIX}" for channel in self.modalities)


def _by_number(content: Mapping[str, Any], path: Path, key: str) -> dict[int, str]:
    try:
        return {int(number): str(name) for number, name in content.items()}
    except ValueError:
        raise DataError(
            f'{path}: the keys of \'{key}\' must be numbers, as in {{"0": "CT"}}; found '
            f"{', '.join(content)}"
        ) from None


def _case_id(image: str) -> str:
    name = PurePosixPath(image).name
    return name[: -len(SUFFIX)] if name.endswith(SUFFIX) else name.split(".")[0]


def _test_path(entry: Any) -> str:
    return str(entry["image"] if isinstance(entry, Mapping) else entry)
