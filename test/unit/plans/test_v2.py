"""What plans and data sets of nnU-Net v2 become here, and what of them is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nnunetlike.core.errors import DataError, PlanError
from nnunetlike.core.serialization import save_json
from nnunetlike.inference.export import ExportSettings
from nnunetlike.plans.topology import Topology
from nnunetlike.plans.v2 import V2Model, load_v2_plans

Load = Callable[..., V2Model]
Change = Callable[[dict[str, Any], dict[str, Any]], object]


@pytest.fixture
def load(tmp_path: Path, v2_models: ModuleType) -> Load:
    """Loads a configuration of a folder whose plans and data set were changed before."""

    def run(configuration: str = "3d_fullres", change: Change | None = None) -> V2Model:
        plans, dataset = v2_models.plans_json(), v2_models.dataset_json()
        if change is not None:
            change(plans, dataset)
        save_json(plans, tmp_path / "plans.json")
        save_json(dataset, tmp_path / "dataset.json")
        return load_v2_plans(tmp_path, configuration)

    return run


def test_a_configuration_of_three_axes_is_one_stage(load: Load) -> None:
    plans = load().plans
    stage = plans.stages[0]
    assert plans.modalities == {0: "CT"} and plans.classes == (1,)  # 2 is to be ignored
    assert plans.normalization_schemes == {0: "CT"} and plans.conventions == "v2"
    assert stage.spacing == (2.0, 1.0, 1.0) and stage.patch_size == (4, 8, 8)
    assert stage.topology == Topology(((2, 2, 2),), ((3, 3, 3), (3, 3, 3)))
    assert plans.preprocessor_name == "GenericPreprocessor"
    known = plans.fingerprint.intensities
    assert known is not None
    found = known[0].overall
    assert (found.mean, found.sd, found.percentile_00_5, found.percentile_99_5) == (
        100.0, 50.0, 0.0, 200.0,
    )  # fmt: skip


def test_a_flat_configuration_keeps_the_spacing_across_slices(load: Load) -> None:
    plans = load("2d").plans
    assert plans.preprocessor_name == "PreprocessorFor2D"
    assert plans.stages[0].patch_size == (8, 8)
    assert plans.stages[0].spacing == (2.0, 1.0, 1.0)


def test_a_configuration_inherits_what_it_does_not_say(load: Load) -> None:
    stage = load("3d_lowres").plans.stages[0]
    assert stage.spacing == (4.0, 2.0, 2.0) and stage.patch_size == (4, 8, 8)


@pytest.mark.parametrize("name", ["PlainConvUNet", "ResidualEncoderUNet"])
def test_the_keys_of_early_versions_describe_the_same_network(
    load: Load, name: str, v2_models: ModuleType
) -> None:
    def early(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
        chosen = plans["configurations"]["3d_fullres"]
        del chosen["architecture"]
        chosen |= {
            "UNet_class_name": name,
            "UNet_base_num_features": 4,
            "unet_max_num_features": 8,
            "n_conv_per_stage_encoder": [1, 1],
            "n_conv_per_stage_decoder": [1],
            "num_pool_per_axis": [1, 1, 1],
            "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]],
            "conv_kernel_sizes": [[3, 3, 3], [3, 3, 3]],
        }
        plans["foreground_intensity_properties_by_modality"] = plans.pop(
            "foreground_intensity_properties_per_channel"
        )
        dataset["modality"] = dataset.pop("channel_names")

    def last_name(value: Any) -> Any:
        return value.rpartition(".")[2] if isinstance(value, str) else value

    found = load(change=early)
    new = v2_models.architecture(3, name)["arch_kwargs"]
    assert found.network.class_name == name
    assert {k: last_name(v) for k, v in found.network.arguments.items()} == {
        k: last_name(v) for k, v in new.items()
    }
    assert found.plans.fingerprint.intensities is not None
    assert found.plans.modalities == {0: "CT"}


def test_regions_are_channels_without_background(load: Load) -> None:
    def joined(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
        dataset["labels"] = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "active": 3}
        dataset["regions_class_order"] = [1, 2, 3]

    plans = load(change=joined).plans
    assert plans.classes == (1, 2, 3) and plans.regions == (1, 2, 3) and plans.num_classes == 3
    assert ExportSettings.of(plans).regions == (1, 2, 3)
    assert load().plans.regions is None and load().plans.num_classes == 2


def test_the_mask_counts_for_the_scheme_that_looks_at_it(load: Load) -> None:
    def masked(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
        names = ["CTNormalization", "ZScoreNormalization", "NoNormalization",
                 "RescaleTo01Normalization", "RGBTo01Normalization"]  # fmt: skip
        plans["configurations"]["3d_fullres"] |= {
            "normalization_schemes": names, "use_mask_for_norm": [True] * 5,
        }  # fmt: skip
        dataset["channel_names"] = {str(i): name for i, name in enumerate(names)}

    plans = load(change=masked).plans
    assert list(plans.normalization_schemes.values()) == [
        "CT",
        "nonCT",
        "noNorm",
        "to01",
        "rgbTo01",
    ]
    assert list(plans.use_mask_for_norm.values()) == [False, True, False, False, False]


def test_probabilities_are_resampled_as_plans_say(load: Load) -> None:
    def cubic(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
        asked = {"is_seg": False, "order": 3, "order_z": 1, "force_separate_z": False}
        plans["configurations"]["3d_fullres"]["resampling_fn_probabilities_kwargs"] = asked

    usual, other = (ExportSettings.of(load(change=change).plans) for change in (None, cubic))
    assert (usual.order, usual.order_z, usual.force_separate_z, usual.logits) == (1, 0, None, True)
    assert (other.order, other.order_z, other.force_separate_z) == (3, 1, False)


def test_torchs_linear_resampling_is_that_of_order_1_along_all_axes(load: Load) -> None:
    def linear(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
        plans["configurations"]["3d_fullres"] |= {
            "resampling_fn_data": "resample_torch_fornnunet",
            "resampling_fn_data_kwargs": {"is_seg": False, "force_separate_z": False},
        }

    assert load(change=linear).plans.extra["image_resampling_params"] == {
        "interpolation_order": 1, "interpolation_order_z": 0, "force_separate_z": False,
    }  # fmt: skip


def test_sizes_and_spacings_of_training_cases_are_known_where_they_were_kept(
    load: Load, tmp_path: Path
) -> None:
    fingerprint = load().plans.fingerprint
    assert fingerprint.sizes == ((4, 8, 8),) and fingerprint.spacings == ()
    facts = {"spacings": [[2, 1, 1], [3, 1, 1]], "shapes_after_crop": [[4, 8, 8], [5, 9, 9]]}
    save_json(facts, tmp_path / "dataset_fingerprint.json")
    fingerprint = load().plans.fingerprint
    assert fingerprint.sizes == ((4, 8, 8), (5, 9, 9))
    assert fingerprint.spacings == ((2.0, 1.0, 1.0), (3.0, 1.0, 1.0))


def test_statistics_that_nobody_uses_may_lack(load: Load) -> None:
    def bare(plans: dict[str, Any], dataset: dict[str, Any]) -> None:
        del plans["foreground_intensity_properties_per_channel"]["0"]["median"]

    known = load(change=bare).plans.fingerprint.intensities
    assert known is not None and math.isnan(known[0].overall.median)


def _change(**values: Any) -> Change:
    return lambda plans, dataset: plans["configurations"]["3d_fullres"].update(values)


REFUSED: dict[str, tuple[Change, str]] = {
    "regions without an order": (
        lambda plans, dataset: dataset["labels"].update(whole=[1, 0]),
        "the regions cell, whole, but regions_class_order names 0 labels",
    ),
    "gaps between labels": (
        lambda plans, dataset: dataset["labels"].update(cell=3),
        r"must be 0, 1, 2, \.\.\.; they are \[0, 3\]",
    ),
    "an unknown scheme": (
        _change(normalization_schemes=["MyNormalization"]),
        "by 'MyNormalization'; known are CTNormalization",
    ),
    "another number of channels": (
        lambda plans, dataset: dataset["channel_names"].update({"1": "PET"}),
        "normalises 1 channels, but dataset.json names 2",
    ),
    "an unknown preprocessor": (
        _change(preprocessor_name="MyPreprocessor"),
        "trained with 'MyPreprocessor'",
    ),
    "unknown resampling": (
        _change(resampling_fn_data="no_resampling_data_or_seg_to_shape"),
        "resamples data by 'no_resampling_data_or_seg_to_shape'",
    ),
    "an unknown reader": (
        lambda plans, dataset: plans.update(image_reader_writer="MyIO"),
        "read by 'MyIO'; of nnU-Net v2's readers known are SimpleITKIO, NibabelIO",
    ),
    "a circle": (_change(inherits_from="3d_fullres"), "inherit in a circle"),
    "no order of axes": (
        lambda plans, dataset: plans.update(transpose_forward=[0, 0, 1]),
        "not an order of three axes",
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_does_not_exist_here_is_refused_by_name(load: Load, reason: str) -> None:
    change, message = REFUSED[reason]
    with pytest.raises(PlanError, match=message):
        load(change=change)


@pytest.mark.parametrize(
    ("reader", "orientation"),
    [("SimpleITKIO", None), ("NibabelIO", None), ("NibabelIOWithReorient", "RAS"),
     ("SimpleITKIOWithReorient", "RAS")],
)  # fmt: skip
def test_readers_that_turn_images_give_plans_an_orientation(
    load: Load, reader: str, orientation: str | None
) -> None:
    model = load(change=lambda plans, dataset: plans.update(image_reader_writer=reader))
    assert model.plans.orientation == orientation


def test_a_second_stage_is_refused(load: Load) -> None:
    with pytest.raises(PlanError, match=r"second stage of a cascade.* Predict with 3d_lowres"):
        load("3d_cascade_fullres")


def test_an_unknown_configuration_is_answered_with_those_there(load: Load) -> None:
    with pytest.raises(PlanError, match="no configuration '3d_huge'; it has 2d, 3d_fullres"):
        load("3d_huge")


def test_a_missing_entry_is_named(load: Load) -> None:
    with pytest.raises(DataError, match="lacks the entry 'spacing'"):
        load(change=lambda plans, dataset: plans["configurations"]["3d_fullres"].pop("spacing"))


def test_an_entry_of_another_form_is_told(load: Load) -> None:
    with pytest.raises(DataError, match="entry of an unknown form"):
        load(change=lambda plans, dataset: plans.update(configurations=3))


@pytest.mark.parametrize("name", ["plans.json", "dataset.json"])
def test_a_missing_file_is_named(load: Load, tmp_path: Path, name: str) -> None:
    load()
    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=f"{name} is missing. A model of nnU-Net v2 consists of"):
        load_v2_plans(tmp_path, "3d_fullres")
