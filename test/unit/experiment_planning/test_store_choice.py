"""Which form preprocessed cases get, and why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nnunetlike.data.store import FORMS, Form
from nnunetlike.experiment_planning.disk_need import DiskNeed
from nnunetlike.experiment_planning.store_choice import Machine, choose_form, forms_that_fit

GIB = 2**30
NEED = DiskNeed(packed=lambda: 4 * GIB, bricks=lambda: 3 * GIB, unpacked=10 * GIB, largest=6 * GIB)
AMPLE = Machine(disk=100 * GIB, memory=24 * GIB, has_blosc2=True)
LITTLE_MEMORY = replace(AMPLE, memory=11 * GIB)
LITTLE_DISK = replace(AMPLE, disk=9 * GIB)


@pytest.mark.parametrize(
    ("machine", "form", "reason"),
    [
        (AMPLE, "npy", "uncompressed, since the 6.0 GiB of the largest stage stay in half of 24.0"),
        (replace(AMPLE, memory=None), "npy", "the largest stage stay in half"),
        (LITTLE_MEMORY, "blosc2", "would not stay in half of 11.0 GiB memory"),
        (LITTLE_DISK, "blosc2", "compressed, since uncompressed they would take 10.0 GiB"),
        (replace(LITTLE_MEMORY, has_blosc2=False), "npy", "blosc2 is not installed: pip install"),
        (replace(LITTLE_DISK, has_blosc2=False), "npz", "blosc2 is not installed: pip install"),
    ],
)
def test_what_fits_disk_and_memory_is_mapped_and_the_rest_in_bricks(
    machine: Machine, form: Form, reason: str
) -> None:
    choice = choose_form(None, (), NEED, machine)
    assert choice.form == form
    assert reason in choice.reason


def test_little_data_stay_as_v1_reads_them_where_they_can_be_unpacked() -> None:
    little = DiskNeed(packed=lambda: 300, bricks=lambda: 200, unpacked=1000, largest=600)
    assert choose_form(None, (), little, AMPLE).form == "npz"
    assert choose_form(None, (), little, replace(AMPLE, disk=1299)).form == "npy"
    assert choose_form(None, (), little, replace(AMPLE, disk=999)).form == "blosc2"
    assert choose_form(None, (), little, replace(AMPLE, memory=1199)).form == "blosc2"
    assert choose_form(None, (), replace(little, unpacked=GIB + 1), AMPLE).form == "npy"


@pytest.mark.parametrize("form", FORMS)
def test_what_is_asked_for_is_taken(form: Form) -> None:
    for machine in (AMPLE, LITTLE_MEMORY, LITTLE_DISK):
        assert choose_form(form, ("npz",), NEED, machine).form == form


@pytest.mark.parametrize("form", ["npz", "npy", "blosc2"])
def test_cases_that_are_there_set_the_form_while_it_fits(form: Form) -> None:
    assert choose_form(None, (form,), NEED, AMPLE).form == form
    assert choose_form(None, ("npy",), NEED, LITTLE_DISK).form == "blosc2"
    assert choose_form(None, ("npz", "blosc2"), NEED, AMPLE).form == "npy"


@pytest.mark.parametrize("there", [(), ("fp16",), ("fp16", "npz")])
def test_what_rounds_is_never_chosen_unasked(there: tuple[Form, ...]) -> None:
    for disk in (1, 4, 6, 9, 100):
        machine = replace(AMPLE, disk=disk * GIB)
        assert choose_form(None, there, NEED, machine).form != "fp16"


def test_forms_that_fit_are_listed_with_what_they_take() -> None:
    assert forms_that_fit(NEED, replace(AMPLE, disk=6 * GIB)) == (
        "--store npz (4.0 GiB) or --store blosc2 (3.0 GiB) or --store fp16 (5.0 GiB, rounds images)"
    )
    missing = replace(AMPLE, disk=3 * GIB, has_blosc2=False)
    assert forms_that_fit(NEED, missing) == (
        '--store blosc2 (3.0 GiB, needs pip install "nnunetlike[blosc2]")'
    )
    assert forms_that_fit(NEED, replace(AMPLE, disk=GIB)) == ""
