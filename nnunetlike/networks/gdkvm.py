"""GDKVM: segments a video frame by frame, with a memory of what it has seen.

A frame first asks the memory of the frames before it, is segmented, and only then is written, with
its own image, features and predicted masks, under its own keys. So the first frame finds an empty
memory, no frame depends on a later one, and a stream of any length needs the memory of one frame.

Each class but the background has an object channel; how many there are is said by the task, never
by labels, which the network does not see.

Axes: B batch, T frames, C image channels, K classes, O = K - 1 objects, H and W pixels, h and w
tokens; a token is `memory_stride` pixels wide.

Source: Wang et al., "GDKVM: Echocardiography Video Segmentation via Spatiotemporal Key-Value Memory
with Gated Delta Rule", ICCV 2025, arXiv:2512.10252; object transformer, sensory memory and decoder:
Cheng et al., arXiv:2310.12982.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetlike.core.errors import PlanError, ShapeError
from nnunetlike.networks import NETWORKS, NetworkTask
from nnunetlike.networks.gated_delta_frames import FrameRule
from nnunetlike.networks.gdkvm_blocks import FeatureFuser, Identity
from nnunetlike.networks.gdkvm_decoder import MaskDecoder, SensoryHead, aggregate
from nnunetlike.networks.gdkvm_encoder import ResNet, load_image_encoder
from nnunetlike.networks.gdkvm_objects import QueryTransformer
from nnunetlike.networks.gdkvm_recollection import Recollection
from nnunetlike.networks.gdkvm_sizes import SIZES, Sizes
from nnunetlike.networks.gdkvm_state import VideoState
from nnunetlike.networks.initialization import initialize
from nnunetlike.plans.plans import NetworkSize

_STRIDES = {16: True, 8: False}
"""Pixels per token: with and without pooling after the stems."""

_BACKBONE_RATE = 0.1
"""Share of the learning rate for pretrained weights. Source: code of arXiv:2512.10252."""


@dataclass(frozen=True)
class FrameFeatures:
    """What the image encoder says of frames, of each on its own."""

    pixels: Tensor
    """Pixel features, (B, C, h, w)."""

    fine: Tensor
    """For the decoder, (B, C, 4 h, 4 w)."""

    middle: Tensor
    """For the decoder, (B, C, 2 h, 2 w)."""

    key: Tensor | None
    """(B, P, 1, C); nothing where nothing is remembered."""

    def frames(self, count: int) -> Iterator[FrameFeatures]:
        """Yield the features (B, ...) of each of `count` frames that were encoded as (B T, ...)."""
        parts = (self.pixels, self.fine, self.middle, self.key)
        by_frame = [
            [None] * count if x is None else x.unflatten(0, (-1, count)).unbind(1) for x in parts
        ]
        for pixels, fine, middle, key in zip(*by_frame, strict=True):
            assert pixels is not None
            assert fine is not None
            assert middle is not None
            yield FrameFeatures(pixels, fine, middle, key)


class GDKVM(nn.Module):
    """The network; see the module's docstring.

    Args:
        task: channels, classes, and pixels per token.
        sizes: widths and depths.
        spec: what is left out, and the rule of the memory.
    """

    backbone_prefix: ClassVar[str] = "image_encoder."
    """Names of the parameters that pretrained weights are for begin with this."""

    def __init__(self, task: NetworkTask, sizes: Sizes, spec: GDKVMSpec) -> None:
        super().__init__()
        if task.memory_stride not in _STRIDES or task.classes < 2:
            raise PlanError(
                f"a GDKVM takes tokens of 8 or 16 pixels and two classes at least, but the plans "
                f"say {task.memory_stride} pixels and {task.classes} classes. Plan this data set "
                "again"
            )
        pool = _STRIDES[task.memory_stride]
        self.sizes, self.classes, self.stride = sizes, task.classes, task.memory_stride
        self.channels, self.detach_every = task.channels, spec.detach_every
        self.input_divisor = (16, 16)
        self.deep_supervision = True
        self.image_encoder = ResNet(
            task.channels,
            sizes.image_width,
            sizes.image_depths,
            bottleneck=sizes.bottleneck,
            pool=pool,
            fixed_norm=spec.pretrained is not None,
        )
        self.pixels = nn.Conv2d(sizes.image_features[2], sizes.embed, 1)
        self.identity = Identity(self.objects, sizes.embed)
        self.recollection = (
            Recollection(
                task.channels,
                sizes,
                rule=spec.rule,
                sensory=spec.sensory,
                mask_feedback=spec.mask_feedback,
                pool=pool,
            )
            if spec.memory
            else None
        )
        self.fuser = FeatureFuser(sizes.embed, sizes.embed, sizes.embed, sizes.fuser_depth)
        self.transformer = QueryTransformer(sizes)
        sensory = spec.memory and spec.sensory
        self.decoder = MaskDecoder(sizes, self.objects, sensory=sensory)
        self.sensory_head = SensoryHead(sizes) if sensory else None
        self._begin()
        self._tell_optimizers(pretrained=spec.pretrained is not None)

    @property
    def objects(self) -> int:
        """Object channels, O: one per class but the background."""
        return self.classes - 1

    def no_weight_decay(self) -> set[str]:
        """Return the names of parameters that weight decay would do harm: gates and queries."""
        ends = ("A_log", "dt_bias", "transformer.query", "transformer.query_place")
        return {name for name, _ in self.named_parameters() if name.endswith(ends)}

    def backbone(self) -> list[nn.Parameter]:
        """Return the parameters that pretrained weights are for, which then learn more slowly."""
        prefix = self.backbone_prefix
        return [p for name, p in self.named_parameters() if name.startswith(prefix)]

    def forward(self, image: Tensor) -> list[Tensor] | Tensor:
        """Return logits of all frames of a clip, alone or with those of coarser heads.

        Args:
            image: (B, C, T, H, W), any T; H and W multiples of `input_divisor`.

        Returns:
            (B, K, T, H, W); with `deep_supervision` a list that begins with these and goes on with
            (B, K, T, h, w) from the sensory memory, if there is one, and from the query
            transformer, before and after each of its blocks.

        Raises:
            ShapeError: the clip does not fit.
        """
        self._check(image, axes=5)
        by_head: list[list[Tensor]] = []
        state = self.init_state(image.shape[0], *image.shape[3:], device=image.device)
        for t, features in enumerate(self._encoded(image)):
            if self.detach_every and t and t % self.detach_every == 0:
                state = state.detach()
            heads, state = self._advance(image[:, :, t], features, state)
            by_head.append(heads)
        clips = [torch.stack(frames, 2) for frames in zip(*by_head, strict=True)]
        return clips if self.deep_supervision else clips[0]

    def step(self, frame: Tensor, state: VideoState) -> tuple[Tensor, VideoState]:
        """Return the logits (B, K, H, W) of the next frame of a stream, and the state after it.

        Args:
            frame: (B, C, H, W).
            state: after the frame before, or of `init_state`; it is not changed.

        Raises:
            ShapeError: the frame does not fit the network or the state.
        """
        self._check(frame, axes=4)
        expected = (frame.shape[0], self.objects, *(n // self.stride for n in frame.shape[2:]))
        if tuple(state.masks.shape) != expected:
            raise ShapeError(
                f"the state is of a stream with (B, objects, h, w) = {tuple(state.masks.shape)}, "
                f"but a frame {tuple(frame.shape)} has {expected}; begin a stream with init_state"
            )
        heads, state = self._advance(frame, self._encode(frame), state)
        return heads[0], state

    def init_state(
        self,
        batch: int,
        height: int,
        width: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> VideoState:
        """Return the state before the first frame: nothing is remembered.

        Args:
            batch: streams, B.
            height: of a frame in pixels, H.
            width: of a frame in pixels, W.
            device: where the state lies; where the network does when absent.
            dtype: of the state, float32 at least; that of the network when absent.
        """
        own = self.pixels.weight
        at = own.device if device is None else torch.device(device)
        kind = torch.promote_types(own.dtype if dtype is None else dtype, torch.float32)
        sizes, lead = self.sizes, (batch, self.objects)
        grid = (height // self.stride, width // self.stride)
        hidden = sizes.sensory if self.decoder.sensory is not None else 0
        shapes = {
            "memory": (sizes.heads, sizes.key, sizes.embed // sizes.heads),
            "sensory": (hidden, *grid),
            "objects": (sizes.queries, sizes.embed + 1),
            "masks": grid,
        }
        zeros = {
            name: torch.zeros(*lead, *shape, device=at, dtype=kind)
            for name, shape in shapes.items()
        }
        return VideoState(**zeros)

    def _begin(self) -> None:
        initialize(self)
        for module in self.modules():
            if isinstance(module, ResNet):
                module.begin()

    def _tell_optimizers(self, *, pretrained: bool) -> None:
        """Mark parameters that do not decay, and those that learn at a share of the rate."""
        kept = self.no_weight_decay()
        for name, parameter in self.named_parameters():
            if name in kept:
                parameter.no_weight_decay = True  # type: ignore[attr-defined]  # for optimizers
        for parameter in self.backbone() if pretrained else ():
            parameter.rate_factor = _BACKBONE_RATE  # type: ignore[attr-defined]  # for optimizers

    def _check(self, image: Tensor, axes: int) -> None:
        ok = image.ndim == axes and image.shape[1] == self.channels and image.numel() > 0
        if not ok or any(n % d for n, d in zip(image.shape[-2:], self.input_divisor, strict=True)):
            form = "(B, C, T, H, W)" if axes == 5 else "(B, C, H, W)"
            raise ShapeError(
                f"expected {form} with {self.channels} channels, and H and W multiples of "
                f"{self.input_divisor}, but got {tuple(image.shape)}"
            )

    def _encoded(self, image: Tensor) -> Iterator[FrameFeatures]:
        """Yield the features of each frame: encoded together to train, else one by one."""
        frames = image.shape[2]
        if torch.is_grad_enabled():
            yield from self._encode(image.transpose(1, 2).flatten(0, 1)).frames(frames)
            return
        for t in range(frames):
            yield self._encode(image[:, :, t])

    def _encode(self, frames: Tensor) -> FrameFeatures:
        fine, middle, coarse = self.image_encoder(frames)
        pixels = self.pixels(coarse)
        key = None if self.recollection is None else self.recollection.keys(coarse, pixels)
        return FrameFeatures(pixels, *self.decoder.skips(fine, middle), key)

    def _advance(
        self, frame: Tensor, features: FrameFeatures, state: VideoState
    ) -> tuple[list[Tensor], VideoState]:
        """Return the logits of all heads (B, K, ...), and the state after the frame."""
        pixels = self.identity(features.pixels)
        if self.recollection is None or features.key is None:
            recalled = torch.zeros_like(pixels)
        else:
            recalled = self.recollection.recall(state, features.key)
        fused = self.fuser(pixels, recalled)
        corrected, coarse = self.transformer(fused, state.objects.flatten(0, 1))
        logits, sensory = self.decoder(
            corrected, features.fine, features.middle, state.sensory.flatten(0, 1)
        )
        by_class = functional.interpolate(
            aggregate(self._by_object(logits[:, 0])), size=frame.shape[2:], mode="bilinear"
        )
        heads = [by_class]
        if self.deep_supervision:
            if self.sensory_head is not None:
                coarse = [self.sensory_head(sensory, features.pixels), *coarse]
            heads += [aggregate(self._by_object(x)) for x in coarse]
        if self.recollection is not None and features.key is not None:
            state = replace(state, sensory=self._by_object(sensory))
            masks = by_class.softmax(1)[:, 1:]
            state = self.recollection.keep(frame, masks, pixels, features.key, state)
        return heads, state

    def _by_object(self, x: Tensor) -> Tensor:
        """Return (B O, ...) as (B, O, ...)."""
        split: Tensor = x.unflatten(0, (-1, self.objects))
        return split


@dataclass(frozen=True, kw_only=True)
class GDKVMSpec:
    """Settings of a GDKVM."""

    strategy: ClassVar[str] = "frame_stream"

    size: NetworkSize | None = None
    """`base` (35 M parameters, as published) or `small`; as planned when absent."""

    memory: bool = True
    """Whether anything passes from frame to frame; else each is segmented as if it were the first.
    """

    rule: FrameRule = "implicit"
    """How a frame is written into the key-value memory."""

    sensory: bool = True
    """Whether there is a sensory memory."""

    mask_feedback: bool = True
    """Whether what is predicted for a frame is remembered with it."""

    detach_every: int | None = None
    """Frames after which gradients are cut off; never when absent."""

    pretrained: str | None = None
    """File with torchvision's weights of a ResNet-50; nothing is ever downloaded."""

    def build(self, task: NetworkTask) -> GDKVM:
        """Return an initialised network.

        Raises:
            DataError: the file with weights is missing or does not fit.
        """
        network = self.build_empty(task)
        if self.pretrained is not None:
            load_image_encoder(network.image_encoder, Path(self.pretrained))
        return network

    def build_empty(self, task: NetworkTask) -> GDKVM:
        """Return the network without reading its file of weights, for weights of a checkpoint."""
        return GDKVM(task, SIZES[self.size or task.network_size], self)

    @classmethod
    def tiny(cls, dimension: int = 2) -> tuple[GDKVMSpec, NetworkTask]:
        """Return a spec and a task small enough for tests; frames always have two axes."""
        del dimension
        task = replace(NetworkTask.tiny(2), memory_stride=8, network_size="small")
        return cls(), task


NETWORKS.add("gdkvm", GDKVMSpec)
