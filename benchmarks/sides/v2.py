"""nnU-Net v2: its own functions, in its own environment; NumPy is all that is imported here."""

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
    "nnunetv2", "batchgenerators", "batchgeneratorsv2", "torch", "numpy", "scipy", "scikit-image",
    "SimpleITK", "blosc2",
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
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

    params, image = read(folder, "image")
    return lambda: resample_data_or_seg(image, params["new"], False, order=3)


def resample_separate(folder: Path) -> Call:
    """`resample_data_or_seg`, slices apart."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

    params, image = read(folder, "image")
    return lambda: resample_data_or_seg(
        image, params["new"], False, axis=0, order=3, do_separate_z=True, order_z=0
    )


def resample_label(folder: Path) -> Call:
    """`resample_data_or_seg` of a label map."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

    params, label = read(folder, "label")
    return lambda: resample_data_or_seg(label[None], params["new"], True, order=1)[0]


def export(folder: Path) -> Call:
    """What `convert_predicted_logits_to_segmentation_with_correct_shape` does with logits."""
    import torch
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    torch.set_num_threads(1)
    params, values = read(folder, "values")
    same = (1.0, 1.0, 1.0)

    def call() -> Any:
        found = resample_data_or_seg_to_shape(
            values, params["new"], same, same, is_seg=False, order=1, order_z=0,
            force_separate_z=None,
        )  # fmt: skip
        return torch.as_tensor(found).argmax(0).numpy()

    return call


def crop(folder: Path) -> Call:
    """`crop_to_nonzero`."""
    from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero

    _, image, label = read(folder, "image", "label")

    def call() -> Mapping[str, Any]:
        data, seg, box = crop_to_nonzero(image, label[None], -1)
        return {"image": data, "label": seg[0], "box": box}

    return call


def fingerprint(folder: Path) -> Call:
    """`collect_foreground_intensities`."""
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import (
        DatasetFingerprintExtractor,
    )

    _, image, label = read(folder, "image", "label")
    names = {"min": "mn", "max": "mx"}

    def call() -> Mapping[str, Any]:
        found = DatasetFingerprintExtractor.collect_foreground_intensities(label[None], image)
        return {names.get(name, name): value for name, value in found[1][0].items()}

    return call


def class_locations(folder: Path) -> Call:
    """`_sample_foreground_locations`."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    params, label = read(folder, "label")
    labels = list(range(1, params["labels"] + 1))

    def call() -> Mapping[str, Any]:
        found = DefaultPreprocessor._sample_foreground_locations(label[None], labels)
        return {str(k): np.reshape(v, (-1, 4))[:, 1:] for k, v in found.items()}

    return call


def dice(folder: Path) -> Call:
    """`compute_metrics`, its files in memory."""
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics

    params, reference, prediction = read(folder, "reference", "prediction")
    labels = list(range(1, params["labels"] + 1))

    class Memory:
        def read_seg(self, name: str) -> tuple[Any, dict[str, Any]]:
            return (reference if name == "reference" else prediction)[None], {}

    def call() -> Mapping[str, Any]:
        found = compute_metrics("reference", "prediction", Memory(), labels)
        return {str(label): found["metrics"][label]["Dice"] for label in labels}

    return call


def read_image(folder: Path) -> Call:
    """`SimpleITKIO.read_images`."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    path = str(folder / "image.nii.gz")
    return lambda: SimpleITKIO().read_images([path])[0]


def write_label(folder: Path) -> Call:
    """`SimpleITKIO.write_seg`."""
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    (label,) = read(folder, "label")[1:]
    _, properties = SimpleITKIO().read_images([str(folder / "image.nii.gz")])
    path = str(folder / "written_by_v2.nii.gz")

    def call() -> Mapping[str, Any]:
        SimpleITKIO().write_seg(label, path, properties)
        return {}

    return call


def patch(folder: Path) -> Call:
    """A patch of its blosc2 store, written for patches of this size."""
    from nnunetv2.training.dataloading import nnunet_dataset

    params = read(folder)[0]
    with np.load(folder / "ours" / "case.npz") as archive:
        data = archive["data"]
    home, size = folder / "v2", (params["patch"],) * 3
    home.mkdir(exist_ok=True)
    image, label = data[:-1], data[-1:].astype(np.int16)
    blocks, chunks = nnunet_dataset.comp_blosc2_params(image.shape, size, image.itemsize)
    of_label = nnunet_dataset.comp_blosc2_params(label.shape, size, label.itemsize)
    nnunet_dataset.nnUNetDatasetBlosc2.save_case(
        image, label, {}, str(home / "case"), chunks=chunks, blocks=blocks,
        chunks_seg=of_label[1], blocks_seg=of_label[0],
    )  # fmt: skip
    store = nnunet_dataset.nnUNetDatasetBlosc2(str(home), ["case"])
    window = (slice(None), *(slice(a, a + params["patch"]) for a in params["start"]))

    def call() -> Mapping[str, Any]:
        image, label, _, _ = store.load_case("case")
        return {"image": np.asarray(image[window]), "label": np.asarray(label[window])[0]}

    return call


def spatial(folder: Path) -> Call:
    """batchgeneratorsv2's `SpatialTransform` as `nnUNetTrainer` sets it, one turn."""
    import torch
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform

    torch.set_num_threads(1)
    params, image, label = read(folder, "image", "label")
    scale = params["scale"]
    transform = SpatialTransform(
        params["patch"], patch_center_dist_from_border=0, random_crop=False, p_elastic_deform=0,
        p_rotation=1, rotation=(0.2, 0.2001), p_scaling=1, scaling=(scale, scale + 1e-4),
        p_synchronize_scaling_across_axes=1, bg_style_seg_sampling=False,
        border_mode_seg="constant", padding_value_seg=-1,
    )  # fmt: skip
    data, seg = torch.from_numpy(image), torch.from_numpy(label)[None]

    def call() -> Mapping[str, Any]:
        found = transform(image=data, segmentation=seg)
        return {"image": found["image"].numpy(), "label": found["segmentation"][0].numpy()}

    return call


def augment(folder: Path) -> Call:
    """`nnUNetTrainer.get_training_transforms`, each probability set to 1."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.set_num_threads(1)
    params, image, label = read(folder, "image", "label")
    chain = nnUNetTrainer.get_training_transforms(
        tuple(params["patch"]), (-0.5236, 0.5236), None, (0, 1, 2), False
    )
    for transform in chain.transforms:
        for part in (transform, getattr(transform, "transform", transform)):
            for name in ("apply_probability", "p_per_channel", "p_rotation", "p_scaling"):
                if hasattr(part, name):
                    setattr(part, name, 1)
    data, seg = torch.from_numpy(image), torch.from_numpy(label)[None]
    np.random.seed(0)
    torch.manual_seed(0)

    def call() -> Mapping[str, Any]:
        found = chain(image=data.clone(), segmentation=seg.clone())
        return {"image": found["image"].numpy(), "label": found["segmentation"][0].numpy()}

    return call


def tiles(folder: Path) -> Call:
    """`predict_sliding_window_return_logits` with a network that is a look-up."""
    from types import SimpleNamespace

    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(1)
    params, image, logits = read(folder, "image", "logits")
    fixed = torch.from_numpy(logits)[None]

    class Table(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return fixed.clone()

    predictor = nnUNetPredictor(
        use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False,
        perform_everything_on_device=False,
    )  # fmt: skip
    predictor.network = Table()
    predictor.configuration_manager = SimpleNamespace(patch_size=params["patch"])
    predictor.label_manager = SimpleNamespace(num_segmentation_heads=len(logits))
    data = torch.from_numpy(image)
    return lambda: predictor.predict_sliding_window_return_logits(data).float().numpy()


def chain_preprocess(folder: Path) -> Call:
    """`nnUNetv2_plan_and_preprocess`, one process, all configurations."""
    out = folder / "v2"

    def call() -> Mapping[str, Any]:
        shutil.rmtree(out, ignore_errors=True)
        places = {"nnUNet_raw": folder / "raw_v2", "nnUNet_preprocessed": out,
                  "nnUNet_results": folder / "results_v2"}  # fmt: skip
        env = {**os.environ, **{key: str(place) for key, place in places.items()}}
        script = Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess")
        subprocess.run(
            [sys.executable, str(script), "-d", "101", "-npfp", "1", "-np", "1", "1", "1",
             "-c", "2d", "3d_fullres", "3d_lowres"],
            env=env, stdout=2, check=True,
        )  # fmt: skip
        return {}

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
    "read_image": read_image,
    "write_label": write_label,
    "patch_128": patch,
    "spatial_3": spatial,
    "spatial_24": spatial,
    "augment_3": augment,
    "augment_24": augment,
    "tiles_3": tiles,
    "tiles_10": tiles,
    "chain_preprocess": chain_preprocess,
    "chain_preprocess_large": chain_preprocess,
    "chain_hippocampus": chain_preprocess,
}
