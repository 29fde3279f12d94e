"""Metadata and console scripts; tool settings are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (HERE / "nnunetlike/__init__.py").read_text())[1]

COMMANDS = {
    "nnUNet_convert_decathlon_task": "convert_decathlon_task",
    "nnUNet_convert_png_task": "convert_png_task",
    "nnUNet_convert_camus_task": "convert_camus_task",
    "nnUNet_convert_echonet_task": "convert_echonet_task",
    "nnUNet_convert_png_video_task": "convert_png_video_task",
    "nnUNet_plan_and_preprocess": "plan_and_preprocess",
    "nnUNet_verify_dataset": "verify_dataset",
    "nnUNet_train": "run_training",
    "nnUNet_train_DDP": "run_training_DDP",
    "nnUNet_train_DP": "run_training_DDP",
    "nnUNet_predict": "predict",
    "nnUNet_evaluate_folder": "evaluate_folder",
    "nnUNet_determine_postprocessing": "determine_postprocessing",
    "nnUNet_ensemble": "ensemble",
    "nnUNet_find_best_configuration": "find_best_configuration",
    "nnUNet_plot_task_pngs": "plot_task_pngs",
    "nnUNet_export_model_to_zip": "export_model_to_zip",
    "nnUNet_install_pretrained_model_from_zip": "install_pretrained_model_from_zip",
    "nnUNet_download_pretrained_model": "download_pretrained_model",
    "nnUNet_download_pretrained_model_by_url": "download_pretrained_model_by_url",
    "nnUNet_print_available_pretrained_models": "print_available_pretrained_models",
    "nnUNet_print_pretrained_model_info": "print_pretrained_model_info",
    "nnUNet_change_trainer_class": "change_trainer_class",
    "nnUNet_export_onnx": "export_onnx",
    "nnUNet_env": "env",
    "nnUNet_clean": "clean",
}

setup(
    name="nnunetlike",
    version=VERSION,
    description="A self-configuring segmentation pipeline in the manner of nnU-Net",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["nnunetlike", "nnunetlike.*"]),
    package_data={"nnunetlike": ["py.typed", "sharing/catalogue.json"]},
    python_requires=">=3.10",
    # Lower bounds only: installing must never replace the torch a user has.
    install_requires=[
        "torch>=2.4",
        "threadpoolctl>=3.1",
        "SimpleITK>=2.3",
        "nibabel>=5.0",
        "scikit-image>=0.22",
        "pillow>=10.1",
        "tifffile>=2023.2.3",
        "numpy>=1.26",
        "scipy>=1.11",
        "pandas>=2.0",
        "matplotlib>=3.8",
        "tqdm>=4.65",
        "numba>=0.60",
        "connected-components-3d>=3.14",
        "isal>=1.6",
    ],
    extras_require={
        "blosc2": ["blosc2>=4.14"],
        "dask": ["distributed>=2024.1"],
        "fla": ["fla-core>=0.6"],
        "onnx": ["onnx>=1.15", "onnxruntime>=1.17"],
        "v2": ["dynamic-network-architectures>=0.2"],
        "video": ["av>=12.0"],
    },
    entry_points={
        "console_scripts": [
            f"{command}=nnunetlike.run.scripts:{module}" for command, module in COMMANDS.items()
        ]
    },
)
