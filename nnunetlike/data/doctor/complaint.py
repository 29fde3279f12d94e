"""What may be wrong with a raw task, how bad it is, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One thing that may be wrong.

    An error stops planning; a warning does not; a note tells what was accepted.
    """

    name: str
    """Key in the JSON report."""

    severity: Severity
    title: str
    """Heading of the report, in the plural."""

    cure: str
    """What to do; `{fix}` stands for the command that writes a mended copy."""


@dataclass(frozen=True, kw_only=True)
class Complaint:
    """One thing that is wrong, with its file."""

    kind: Kind
    file: str
    """Path below the task folder, such as `labelsTr/liver_3.nii.gz`."""

    found: str
    expected: str
    """Empty where `found` says it."""

    case_id: str | None = None
    """The case it concerns; None if it is the whole task."""

    cure: str = ""
    """Replaces the cure of the kind where the data tell more."""

    @property
    def remedy(self) -> str:
        """What to do about it, with `{fix}` for the command that writes a mended copy."""
        return self.cure or self.kind.cure

    def __str__(self) -> str:
        if not self.expected:
            return f"{self.file}: {self.found}"
        return f"{self.file}: found {self.found}; expected {self.expected}"


def of_severity(complaints: Iterable[Complaint], severity: Severity) -> tuple[Complaint, ...]:
    """Return the complaints of one severity, in order."""
    return tuple(c for c in complaints if c.kind.severity == severity)


LEAVE_OUT = "mend the files, or write a copy without these cases: {fix}"
NOT_COPIED = "delete them, or list their case in dataset.json; {fix} writes a copy without them"

DESCRIPTION = Kind(
    name="description",
    severity="error",
    title="dataset.json cannot be used as it is",
    cure="edit dataset.json",
)
MISSING_FOLDER = Kind(
    name="missing_folder",
    severity="error",
    title="folders that are missing",
    cure="put the folder there, or convert the data again with nnUNet_convert_decathlon_task",
)
DUPLICATE = Kind(
    name="duplicate_case",
    severity="error",
    title="cases that dataset.json lists more than once",
    cure="{fix} lists each once",
)
DUPLICATE_TEST = Kind(
    name="duplicate_test_case",
    severity="warning",
    title="test cases that dataset.json lists more than once",
    cure="nothing depends on it; {fix} lists each once",
)
GAPPED_LABELS = Kind(
    name="gapped_labels",
    severity="error",
    title="labels that are not numbered 0, 1, 2, … in dataset.json",
    cure="{fix} numbers them anew, in the label files and in dataset.json",
)
CHANNEL_IN_ID = Kind(
    name="channel_in_id",
    severity="error",
    title="cases that dataset.json names with their channel number",
    cure="{fix} writes the names without it",
)
NO_CHANNEL_NUMBER = Kind(
    name="no_channel_number",
    severity="error",
    title="images without a channel number (_0000) in their names",
    cure="{fix} adds it",
)
MISSING_IMAGE = Kind(
    name="missing_image", severity="error", title="images that are missing", cure=LEAVE_OUT
)
MISSING_LABEL = Kind(
    name="missing_label", severity="error", title="labels that are missing", cure=LEAVE_OUT
)
SURPLUS_CHANNEL = Kind(
    name="surplus_channel",
    severity="error",
    title="images of channels that dataset.json does not declare",
    cure="declare the channel in dataset.json, or write a copy without these files: {fix}",
)
WRONG_CHANNELS = Kind(
    name="wrong_channels",
    severity="error",
    title="cases with another number of channels than dataset.json declares",
    cure="declare the channels that the files have, such as red, green and blue; or write a copy "
    "without these cases: {fix}",
)
UNLISTED = Kind(
    name="unlisted_file",
    severity="error",
    title="files that no case of dataset.json asks for",
    cure=NOT_COPIED,
)
UNLISTED_TEST = Kind(
    name="unlisted_test_image",
    severity="note",
    title="files in imagesTs, where dataset.json lists no test case",
    cure="nothing; list them under 'test' to have them checked",
)
UNREADABLE = Kind(
    name="unreadable", severity="error", title="files that cannot be read", cure=LEAVE_OUT
)
NOT_FINITE = Kind(
    name="not_finite",
    severity="error",
    title="images with voxels that are NaN or infinite",
    cure="{fix} --fill minimum puts the least finite value of the file there, --fill 0 zero "
    "(without --fill the copy leaves these cases out)",
)
LABEL_NOT_FINITE = Kind(
    name="label_not_finite",
    severity="error",
    title="labels with voxels that are NaN or infinite",
    cure=LEAVE_OUT,
)
ALL_ZERO = Kind(
    name="image_all_zero",
    severity="error",
    title="cases whose images are zero everywhere",
    cure=LEAVE_OUT,
)
ZERO_CHANNEL = Kind(
    name="channel_all_zero",
    severity="warning",
    title="channels that are zero everywhere, in cases where others are not",
    cure="make sure that the image was not acquired; export it anew if it was",
)
OTHER_SIZE = Kind(
    name="other_size",
    severity="error",
    title="files that have another size than the image of their case",
    cure="make sure that they show the same patient, and export them on one grid; for labels whose "
    "headers are right: {fix} --grid resample (without --grid the copy leaves these cases out)",
)
OTHER_GRID = Kind(
    name="other_grid",
    severity="error",
    title="files that lie elsewhere than the image of their case",
    cure="if the voxels of a label belong to the image and only its header is wrong: {fix} --grid "
    "copy; if its header is right: {fix} --grid resample (without --grid the copy leaves these "
    "cases out)",
)
BETWEEN_VOXELS = Kind(
    name="shifted_grid",
    severity="error",
    title="files that lie less than half a voxel beside the image of their case",
    cure="{fix} gives labels the geometry of their image (the nearest voxels are the same); cases "
    "with such images are left out",
)
ROUNDED_GRID = Kind(
    name="rounded_grid",
    severity="note",
    title="files whose geometry differs from their image's by rounding",
    cure="nothing; accepted as it is. {fix} gives labels the geometry of their image",
)
FRACTIONAL = Kind(
    name="fractional_label",
    severity="error",
    title="labels with values that are no integers",
    cure="export the label anew, resampled with nearest neighbours (each value is then an integer)"
    "; or write a copy without these cases: {fix}",
)
NEAR_INTEGER = Kind(
    name="rounded_label",
    severity="note",
    title="labels with values that are integers but for rounding",
    cure="nothing; they are rounded when read. {fix} stores the integers",
)
UNDECLARED = Kind(
    name="undeclared_label",
    severity="error",
    title="labels with values that dataset.json does not declare",
    cure=LEAVE_OUT,
)
NO_FACTS = Kind(
    name="video_without_facts",
    severity="error",
    title="videos whose facts are missing or cannot be used",
    cure="write them, at least patient and labelled_frames; or write a copy without these cases: "
    "{fix}",
)
VIDEO_FAULT = Kind(
    name="video_fault",
    severity="error",
    title="videos, label maps and facts that contradict one another",
    cure="correct the label map or the facts; or write a copy without these cases: {fix}",
)
TORN_PATIENT = Kind(
    name="torn_patient",
    severity="error",
    title="patients in two of the data set's own lists",
    cure="give all videos of a patient the same 'split' in their facts",
)
EMPTY_LABEL = Kind(
    name="empty_label",
    severity="note",
    title="labels without foreground",
    cure="nothing, if there is nothing to see in these cases",
)
ORIENTATION = Kind(
    name="mixed_orientation",
    severity="warning",
    title="images stored in different orientations",
    cure="networks are trained on images as stored: store those for training in one orientation "
    "(nibabel.as_closest_canonical for example), with their labels; others are turned to it",
)
ABSENT_LABEL = Kind(
    name="absent_label",
    severity="warning",
    title="labels that are declared but occur in no case",
    cure="take them out of dataset.json, or make sure that the right labels were exported",
)
WRONG_COUNT = Kind(
    name="wrong_count",
    severity="warning",
    title="counts in dataset.json that differ from its lists",
    cure="nothing depends on it; {fix} writes the right count",
)
