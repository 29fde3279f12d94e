"""nnU-Net v1: its own functions, in its own environment; NumPy is all that is imported here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

DISTRIBUTIONS = (
    "nnunet", "batchgenerators", "torch", "numpy", "scipy", "scikit-image", "SimpleITK",
)  # fmt: skip
Call = Callable[[], Any]


def read(folder: Path, *names: str) -> list[Any]:
    """Return the parameters of a stage and arrays of its inputs."""
    return [
        json.loads((folder / "params.json").read_text()),
        *(np.load(folder / f"{name}.npy") for name in names),
    ]


def resample_image(folder: Path) -> Call:
    """`resample_data_or_seg`, all axes together."""
    from nnunet.preprocessing.preprocessing import resample_data_or_seg

    params, image = read(folder, "image")
    return lambda: resample_data_or_seg(image, params["new"], False, order=3)


def resample_separate(folder: Path) -> Call:
    """`resample_data_or_seg`, slices apart."""
    from nnunet.preprocessing.preprocessing import resample_data_or_seg

    params, image = read(folder, "image")
    return lambda: resample_data_or_seg(
        image, params["new"], False, axis=[0], order=3, do_separate_z=True, order_z=0
    )


def resample_label(folder: Path) -> Call:
    """`resample_data_or_seg` of a label map."""
    from nnunet.preprocessing.preprocessing import resample_data_or_seg

    params, label = read(folder, "label")
    return lambda: resample_data_or_seg(label[None], params["new"], True, order=1)[0]


def export(folder: Path) -> Call:
    """What `save_segmentation_nifti_from_softmax` does before it writes."""
    from nnunet.preprocessing.preprocessing import resample_data_or_seg

    params, values = read(folder, "values")
    return lambda: resample_data_or_seg(values, params["new"], is_seg=False, order=1).argmax(0)


def crop(folder: Path) -> Call:
    """`crop_to_nonzero`."""
    from nnunet.preprocessing.cropping import crop_to_nonzero

    _, image, label = read(folder, "image", "label")

    def call() -> Mapping[str, Any]:
        data, seg, box = crop_to_nonzero(image, label[None], nonzero_label=-1)
        return {"image": data, "label": seg[0], "box": box}

    return call


def fingerprint(folder: Path) -> Call:
    """`DatasetAnalyzer`'s foreground voxels and statistics of one case, without reading it."""
    from nnunet.experiment_planning.DatasetAnalyzer import DatasetAnalyzer

    _, image, label = read(folder, "image", "label")

    def call() -> Mapping[str, Any]:
        voxels = list(image[0][label > 0][::10])  # _get_voxels_in_foreground
        found = DatasetAnalyzer._compute_stats(voxels)
        names = ("median", "mean", "sd", "mn", "mx", "percentile_99_5", "percentile_00_5")
        return {name: v for name, v in zip(names, found) if name != "sd"}  # noqa: B905

    return call


def class_locations(folder: Path) -> Call:
    """The loop of `GenericPreprocessor._run_internal`, which cannot be called alone."""
    params, label = read(folder, "label")

    def call() -> Mapping[str, Any]:
        random, found = np.random.RandomState(1234), {}
        for value in range(1, params["labels"] + 1):
            every = np.argwhere(label == value)
            if len(every) == 0:
                found[str(value)] = every
                continue
            count = max(min(10000, len(every)), int(np.ceil(len(every) * 0.01)))
            found[str(value)] = every[random.choice(len(every), count, replace=False)]
        return found

    return call


def dice(folder: Path) -> Call:
    """`Evaluator` with Dice alone."""
    from nnunet.evaluation.evaluator import Evaluator

    params, reference, prediction = read(folder, "reference", "prediction")
    labels = list(range(1, params["labels"] + 1))

    def call() -> Mapping[str, Any]:
        judge = Evaluator(prediction, reference, labels, metrics=["Dice"], advanced_metrics=[])
        found = judge.evaluate(advanced=False)
        return {str(label): found[str(label)]["Dice"] for label in labels}

    return call


def hd95(folder: Path) -> Call:
    """`hausdorff_distance_95` (medpy)."""
    from nnunet.evaluation.metrics import hausdorff_distance_95

    _, reference, prediction = read(folder, "reference", "prediction")

    def call() -> Mapping[str, Any]:
        masks = prediction == 1, reference == 1
        return {"1": hausdorff_distance_95(*masks, voxel_spacing=(1.0, 1.0, 1.0))}

    return call


def read_image(folder: Path) -> Call:
    """`load_case_from_list_of_files`."""
    from nnunet.preprocessing.cropping import load_case_from_list_of_files

    path = str(folder / "image.nii.gz")
    return lambda: load_case_from_list_of_files([path])[0]


def write_label(folder: Path) -> Call:
    """`save_segmentation_nifti` on the same grid."""
    from nnunet.inference.segmentation_export import save_segmentation_nifti
    from nnunet.preprocessing.cropping import load_case_from_list_of_files

    (label,) = read(folder, "label")[1:]
    properties = load_case_from_list_of_files([str(folder / "image.nii.gz")])[2]
    properties["size_after_cropping"] = label.shape
    properties["crop_bbox"] = None
    path = str(folder / "written_by_v1.nii.gz")

    def call() -> Mapping[str, Any]:
        save_segmentation_nifti(label, path, properties)
        return {}

    return call


def patch(folder: Path) -> Call:
    """`DataLoader3D`'s way: the unpacked npy, memory-mapped, of which a patch is copied."""
    params = read(folder)[0]
    unpacked = folder / "v1.npy"
    with np.load(folder / "ours" / "case.npz") as archive:
        np.save(unpacked, archive["data"])
    window = (slice(None), *(slice(a, a + params["patch"]) for a in params["start"]))

    def call() -> Mapping[str, Any]:
        data = np.array(np.load(unpacked, "r")[window])
        return {"image": data[:-1], "label": data[-1].astype(np.int16)}

    return call


def spatial(folder: Path) -> Call:
    """Batchgenerators' `SpatialTransform` as `get_moreDA_augmentation` sets it, one turn."""
    from batchgenerators.transforms.spatial_transforms import SpatialTransform

    params, image, label = read(folder, "image", "label")
    turns = [(angle, angle) for angle in params["angles"]]
    transform = SpatialTransform(
        params["patch"], patch_center_dist_from_border=None, do_elastic_deform=False,
        do_rotation=True, angle_x=turns[0], angle_y=turns[1], angle_z=turns[2],
        p_rot_per_axis=1, p_rot_per_sample=1, do_scale=True, p_scale_per_sample=1,
        scale=(params["scale"], params["scale"]), border_mode_data="constant", border_cval_data=0,
        order_data=3, border_mode_seg="constant", border_cval_seg=-1, order_seg=1,
        random_crop=False, independent_scale_for_each_axis=False,
    )  # fmt: skip

    def call() -> Mapping[str, Any]:
        found = transform(data=image[None], seg=label[None, None])
        return {"image": found["data"][0], "label": found["seg"][0, 0]}

    return call


def augment(folder: Path) -> Call:
    """`get_moreDA_augmentation` itself, each transform's probability set to 1."""
    from nnunet.training.data_augmentation.data_augmentation_moreDA import get_moreDA_augmentation
    from nnunet.training.data_augmentation.default_data_augmentation import (
        default_3D_augmentation_params,
    )

    params, image, label = read(folder, "image", "label")
    limits = (-30.0 / 360 * 2 * np.pi, 30.0 / 360 * 2 * np.pi)
    asked = dict(
        default_3D_augmentation_params, rotation_x=limits, rotation_y=limits, rotation_z=limits,
        scale_range=(0.7, 1.4), do_elastic=False, num_threads=1, num_cached_per_thread=1,
        mask_was_used_for_normalization={0: False}, selected_seg_channels=[0],
    )  # fmt: skip
    chain = get_moreDA_augmentation(None, None, params["patch"], asked, pin_memory=False)[0]
    for transform in chain.transform.transforms:
        for name in vars(transform):
            if name.startswith("p_") and "el" not in name.split("_"):
                setattr(transform, name, 1)
    np.random.seed(0)

    def call() -> Mapping[str, Any]:
        found = chain.transform(data=image[None].copy(), seg=label[None, None].copy())
        return {"image": found["data"][0].numpy(), "label": found["target"][0, 0].numpy()}

    return call


def tiles(folder: Path) -> Call:
    """`predict_3D` with a network that is a look-up."""
    import torch
    from nnunet.network_architecture.neural_network import SegmentationNetwork

    torch.set_num_threads(1)
    params, image, logits = read(folder, "image", "logits")
    fixed = torch.from_numpy(logits)[None]

    class Table(SegmentationNetwork):
        def forward(self, x: Any) -> Any:
            return fixed.clone()

    network = Table()
    network.conv_op, network.num_classes = torch.nn.Conv3d, len(logits)
    network.input_shape_must_be_divisible_by = [1, 1, 1]
    network.inference_apply_nonlin = lambda x: x
    network.eval()
    return lambda: network.predict_3D(
        image, do_mirroring=False, mirror_axes=(), use_sliding_window=True, step_size=0.5,
        patch_size=tuple(params["patch"]), use_gaussian=True, all_in_gpu=False, verbose=False,
        mixed_precision=False,
    )[1]  # fmt: skip


def forward(folder: Path) -> Call:
    """`Generic_UNet` in float32, as v1 predicts without a GPU."""
    import torch
    from nnunet.network_architecture.generic_UNet import Generic_UNet
    from nnunet.network_architecture.initialization import InitWeights_He

    torch.set_num_threads(1)
    params, image = read(folder, "image")
    pools, kernels = [[2] * 3] * params["pools"], [[3] * 3] * (params["pools"] + 1)
    network = Generic_UNet(
        1, params["features"], params["classes"], params["pools"], 2, 2, torch.nn.Conv3d,
        torch.nn.InstanceNorm3d, {"eps": 1e-5, "affine": True}, torch.nn.Dropout3d,
        {"p": 0, "inplace": True}, torch.nn.LeakyReLU, {"negative_slope": 1e-2, "inplace": True},
        True, False, lambda x: x, InitWeights_He(1e-2), pools, kernels, False, True, True,
    )  # fmt: skip
    with np.load(folder / "weights.npz") as weights:
        network.load_state_dict({name: torch.from_numpy(weights[name]) for name in weights})
    network.eval()
    network.do_ds = False
    batch = torch.from_numpy(image)[None]

    def call() -> Any:
        with torch.no_grad():
            return network(batch)[0].numpy()

    return call


def _command(folder: Path, name: str, *words: str) -> None:
    """Run a console script of v1, its folders below `folder / v1`."""
    places = {"nnUNet_raw_data_base": folder / "raw_v1", "nnUNet_preprocessed": folder / "v1",
              "RESULTS_FOLDER": folder / "model"}  # fmt: skip
    script = Path(sys.executable).with_name(name)
    env = {**os.environ, **{key: str(place) for key, place in places.items()}}
    subprocess.run([sys.executable, str(script), *words], env=env, stdout=2, check=True)


def chain_preprocess(folder: Path) -> Call:
    """`nnUNet_plan_and_preprocess`, one process."""
    out = folder / "v1"

    def call() -> Mapping[str, Any]:
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(folder / "raw_v1" / "nnUNet_cropped_data", ignore_errors=True)
        _command(folder, "nnUNet_plan_and_preprocess", "-t", "101", "-tl", "1", "-tf", "1")
        stage = out / "Task101_Chain" / "nnUNetData_plans_v2.1_stage0"
        with np.load(stage / "case_0.npz") as archive:
            return {"case": archive["data"]}

    return call


def chain_predict(folder: Path) -> Call:
    """`nnUNet_predict` with one process to read and one to write."""
    out = folder / "predicted_by_v1"

    def call() -> Mapping[str, Any]:
        import SimpleITK as sitk

        shutil.rmtree(out, ignore_errors=True)
        _command(
            folder, "nnUNet_predict", "-i", str(folder / "new"), "-o", str(out), "-t", "101",
            "-m", "3d_fullres", "-tr", "nnUNetTrainerV2", "-f", "all", "--disable_tta",
            "--num_threads_preprocessing", "1", "--num_threads_nifti_save", "1",
            "--disable_mixed_precision",
        )  # fmt: skip
        image = sitk.ReadImage(str(out / "case_0.nii.gz"))
        return {"label": sitk.GetArrayFromImage(image)}

    return call


STAGES: Mapping[str, Callable[[Path], Call]] = {
    "resample_image": resample_image,
    "resample_separate": resample_separate,
    "resample_label_3": resample_label,
    "resample_label_98": resample_label,
    "export_3": export,
    "export_25": export,
    "crop_brain": crop,
    "crop_ct": crop,
    "fingerprint": fingerprint,
    "class_locations": class_locations,
    "dice_24": dice,
    "hd95": hd95,
    "read_image": read_image,
    "write_label": write_label,
    "patch_128": patch,
    "spatial_3": spatial,
    "spatial_24": spatial,
    "augment_3": augment,
    "augment_24": augment,
    "tiles_3": tiles,
    "tiles_10": tiles,
    "forward": forward,
    "forward_bf16": forward,
    "chain_preprocess": chain_preprocess,
    "chain_preprocess_large": chain_preprocess,
    "chain_hippocampus": chain_preprocess,
    "chain_predict": chain_predict,
    "chain_predict_large": chain_predict,
    "chain_hippocampus_predict": chain_predict,
}
