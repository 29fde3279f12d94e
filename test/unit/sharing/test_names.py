from __future__ import annotations

import pytest

from nnunetlike.sharing.names import fault_of_all, fault_of_name

GOOD = (
    "3d_fullres/Task901_Tiny/nnUNetTrainerV2__nnUNetPlansv2.1/plans.pkl",
    "2d/Task089_Fluo-N2DH-SIM_thickborder_time/T__P/fold_0/model_final_checkpoint.model.pkl",
    "2d/Task001_Größe/T__P/all/debug.json",
    "2d/",
)


@pytest.mark.parametrize("name", GOOD)
def test_names_of_models_are_good(name: str) -> None:
    assert fault_of_name(name) is None


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "has no name"),
        ("/", "is an absolute path"),
        ("/etc/passwd", "is an absolute path"),
        ("../x", "leads out"),
        ("a/../../x", "leads out"),
        ("a/..", "leads out"),
        ("./a", "has an empty component"),
        ("a//b", "has an empty component"),
        ("C:/x", "has a drive letter"),
        ("C:x", "has a drive letter"),
        ("a/x:stream", "has a drive letter or colon"),
        ("..\\x", "has a backslash"),
        ("\\\\host\\share", "has a backslash"),
        ("a\0b", "has control characters"),
        ("a\nb", "has control characters"),
        ("a\u202egnp.exe", "has control characters"),
        ("a/.hidden", "begins or ends with a dot"),
        ("a/b.", "begins or ends with a dot"),
        ("a /b", "begins or ends with a dot or a space"),
        ("a/NUL.json", "a device of Windows"),
        ("a/com1", "a device of Windows"),
        ("a/" + "é" * 101, "more than 200 bytes"),
    ],
)
def test_names_that_lead_elsewhere_on_some_system_are_not(name: str, fault: str) -> None:
    assert fault in (fault_of_name(name) or "")


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["a/b", "a/c", "d"], None),
        (["a/b", "a/b"], "'a/b' is there twice"),
        (["a/B", "a/b"], "'a/b' is 'a/B' on some systems"),
        (["a/stra\u00dfe", "a/STRASSE"], "on some systems"),
        (["a/e\u0301", "a/\u00e9"], "on some systems"),
        (["A/b", "a/c"], "the folder 'a' is 'A' on some systems"),
        (["a/b", "a/b/c"], "'a/b' is a file where 'a/b/c' needs a folder"),
        (["a/b/c", "a"], "'a' is a file where 'a/b/c' needs a folder"),
    ],
)
def test_names_that_are_one_file_on_some_system_are_told(
    names: list[str], fault: str | None
) -> None:
    found = fault_of_all(names)
    assert found == fault if fault is None else fault in str(found)
