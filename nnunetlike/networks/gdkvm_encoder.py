"""Residual encoders without their last stage, with torchvision's parameter names.

Axes: B batch, C image channels or features, H and W pixels.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetlike.core.errors import DataError
from nnunetlike.networks.gdkvm_blocks import group_norm
from nnunetlike.networks.model_files import load_content

_EXPANSION = 4
_SHOWN = 6


class FixedNorm(nn.Module):
    """Batch norm whose statistics are those of a weights file and never change."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C, H, W), normalized."""
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


class ResidualBlock(nn.Module):
    """A basic block (two 3x3 convolutions) or a bottleneck (1x1, 3x3, 1x1)."""

    def __init__(
        self, channels: int, width: int, stride: int, *, bottleneck: bool, fixed_norm: bool
    ) -> None:
        super().__init__()
        norm = FixedNorm if fixed_norm else group_norm
        self.bottleneck = bottleneck
        out = width * _EXPANSION if bottleneck else width
        first = (1, 1, 0) if bottleneck else (3, stride, 1)
        second = stride if bottleneck else 1
        self.conv1 = nn.Conv2d(channels, width, *first, bias=False)
        self.bn1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, second, 1, bias=False)
        self.bn2 = norm(width)
        if bottleneck:
            self.conv3 = nn.Conv2d(width, out, 1, bias=False)
            self.bn3 = norm(out)
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), norm(out))
            if stride != 1 or channels != out
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C', H / stride, W / stride)."""
        change = functional.relu(self.bn1(self.conv1(x)))
        change = self.bn2(self.conv2(change))
        if self.bottleneck:
            change = self.bn3(self.conv3(functional.relu(change)))
        return functional.relu(change + self.downsample(x))


class ResNet(nn.Module):
    """Stem and three stages.

    Args:
        channels: channels that come in.
        width: features of the stem.
        depths: blocks of each stage.
        bottleneck: blocks are bottlenecks.
        pool: pool after the stem: levels at strides 4, 8, 16, else 2, 4, 8.
        fixed_norm: norms have the statistics of a weights file, else they are group norms.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        depths: tuple[int, int, int],
        *,
        bottleneck: bool,
        pool: bool,
        fixed_norm: bool = False,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = FixedNorm(width) if fixed_norm else group_norm(width)
        stages, coming = [], width
        for level, depth in enumerate(depths):
            blocks = []
            for place in range(depth):
                stride = 2 if level and not place else 1
                inner = width * 2**level
                blocks.append(
                    ResidualBlock(
                        coming, inner, stride, bottleneck=bottleneck, fixed_norm=fixed_norm
                    )
                )
                coming = inner * (_EXPANSION if bottleneck else 1)
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of three levels, finest first.

        Args:
            image: (B, C, H, W).
        """
        x = functional.relu(self.bn1(self.conv1(image)))
        if self.pool:
            x = functional.max_pool2d(x, 3, 2, 1)
        fine = self.layer1(x)
        middle = self.layer2(fine)
        return fine, middle, self.layer3(middle)

    def begin(self) -> None:
        """Let every block with a group norm at its end begin as (nearly) the identity, in place."""
        for block in self.modules():
            if isinstance(block, ResidualBlock):
                last = block.bn3 if block.bottleneck else block.bn2
                if isinstance(last, nn.GroupNorm):
                    nn.init.constant_(last.weight, 0.2)


def load_image_encoder(encoder: ResNet, path: Path) -> None:
    """Copy torchvision's weights of a ResNet-50 into `encoder`, in place.

    The first kernel is summed over red, green and blue and dealt evenly to the channels, so that an
    image gives what it gives as a gray picture. The stage and the head that are not there are
    passed over.

    Args:
        encoder: with `fixed_norm`.
        path: a state_dict, such as torchvision's resnet50-*.pth; nothing is ever downloaded.

    Raises:
        DataError: the file is missing or damaged, or lacks a tensor, or one has another shape.
    """
    weights = _read(path)
    own = encoder.state_dict()
    if "conv1.weight" in weights:
        channels = own["conv1.weight"].shape[1]
        gray = weights["conv1.weight"].sum(1, keepdim=True) / channels
        weights["conv1.weight"] = gray.expand(-1, channels, -1, -1)
    wrong = [n for n in own if n not in weights or weights[n].shape != own[n].shape]
    if wrong:
        raise DataError(
            f"{path} does not hold the weights of a ResNet-50 by torchvision's names: "
            f"{', '.join(wrong[:_SHOWN])} {'lacks' if len(wrong) == 1 else 'lack'} or have another "
            "shape. Give a file such as torchvision's resnet50-0676ba61.pth, and use size base"
        )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(weights[name])


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError(
            f"the weights file {path} does not exist. Nothing is downloaded: fetch it yourself, or "
            "train without pretrained weights"
        )
    return load_content(path)
