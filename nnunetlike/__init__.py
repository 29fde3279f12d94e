"""A self-configuring segmentation pipeline in the manner of nnU-Net."""

__version__ = "0.1.0"
