"""What preprocessed cases are stored as: what the user asks for, or what suits the machine.

A patch is read soonest from memory-mapped arrays, as long as the system keeps them in memory. Where
it cannot, or the disk has no room for them, compressed bricks are smaller. Little data are packed,
and unpacked for training, within seconds; they stay as nnU-Net v1 reads them. Measurements are in
docs/decisions/0012-form-of-preprocessed-cases.md.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nnunetlike.core.resources import in_words
from nnunetlike.data.store import FORMS, Form
from nnunetlike.experiment_planning.disk_need import DiskNeed

SHARE_OF_MEMORY = 0.5
"""Of this machine's memory that cases may fill; the rest is for networks and workers."""

LITTLE = 2**30
"""Bytes of uncompressed cases that are packed and unpacked as v1 does: some 10 s of one core."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What there is to store cases with."""

    disk: int
    """Free bytes, with those of files that will be written anew."""

    memory: int | None
    """Bytes of main memory; None where the system does not tell."""

    has_blosc2: bool


@dataclass(frozen=True)
class Choice:
    """A form, and why it was taken."""

    form: Form
    reason: str


def choose_form(
    asked: Form | None, there: Collection[Form], need: DiskNeed, machine: Machine
) -> Choice:
    """Return what to store cases as. It may need more than the disk has; nothing then fits better.

    Args:
        asked: by the user; None: what suits the machine.
        there: forms of the cases that an earlier run has left.
        need: bytes of the cases in each form.
        machine: what there is.
    """
    if asked is not None:
        return Choice(asked, "as --store asks")
    if len(there) == 1 and "fp16" not in there:
        (form,) = there
        if need.of(form) <= machine.disk:
            return Choice(form, "as the cases that are there")
    return _suited(need, machine)


def _suited(need: DiskNeed, machine: Machine) -> Choice:
    """Return what suits a machine, which is never what rounds."""
    fits = need.unpacked <= machine.disk
    stays = machine.memory is None or need.largest <= SHARE_OF_MEMORY * machine.memory
    memory = "memory" if machine.memory is None else f"{in_words(machine.memory)} memory"
    largest = f"the {in_words(need.largest)} of the largest stage"
    if need.unpacked <= LITTLE and stays and need.of("npz") + need.unpacked <= machine.disk:
        return Choice("npz", f"as nnU-Net v1 has them, since all are {in_words(need.unpacked)}")
    if fits and stays:
        return Choice("npy", f"uncompressed, since {largest} stay in half of {memory}")
    why = (
        f"{largest} would not stay in half of {memory}"
        if fits
        else f"they would take {in_words(need.unpacked)}"
    )
    if machine.has_blosc2:
        return Choice("blosc2", f"compressed, since uncompressed {why}")
    advice = 'blosc2 is not installed: pip install "nnunetlike[blosc2]"'
    if fits:
        return Choice("npy", f"uncompressed, though {why}; {advice}")
    return Choice("npz", f"compressed, since uncompressed {why}; {advice}")


def forms_that_fit(need: DiskNeed, machine: Machine) -> str:
    """Return the forms that the disk has room for, with what each takes; empty without any."""
    remarks: dict[Form, str] = {"fp16": ", rounds images"}
    if not machine.has_blosc2:
        remarks["blosc2"] = ', needs pip install "nnunetlike[blosc2]"'
    return " or ".join(
        f"--store {form} ({in_words(need.of(form))}{remarks.get(form, '')})"
        for form in FORMS
        if need.of(form) <= machine.disk
    )
