"""What is known of an object as a whole, and how it corrects the pixels: summaries and queries.

Attention is masked softly: queries of the first half look where the object is likely, those of the
second where it is not; the mask is a prediction from the pixels, before and after each block.

Axes: B batch, O objects, Q queries (and summaries), C features, P = h w tokens.

Source: Cheng et al., "Putting the Object Back into Video Object Segmentation", CVPR 2024,
arXiv:2310.12982, where masks are hard.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunetlike.networks.gated_delta import full_precision
from nnunetlike.networks.gdkvm_blocks import GatedResidualBlock, sines
from nnunetlike.networks.gdkvm_sizes import Sizes

OBJECT_DECAY = 0.9
"""What a frame leaves of the object memory before it, which is a running mean."""

_AREA_EPSILON = 1e-4


class ObjectSummarizer(nn.Module):
    """Sums features of a frame over parts of an object, and over parts of what it is not."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.embed
        self.project = nn.Linear(width, width)
        self.features = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.weights = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, sizes.queries)
        )

    def forward(self, value: Tensor, masks: Tensor) -> Tensor:
        """Return mean features over the frame and, last, mean weights, (B O, Q, C + 1).

        Args:
            value: (B O, C, h, w).
            masks: probability of the object, (B O, h, w).
        """
        tokens = self.project(value.flatten(2).mT)
        where = sines(tokens.shape[2], value.shape[2], value.shape[3], value.device).flatten(1).T
        tokens = tokens + where.to(tokens.dtype)
        features, weights = self.features(tokens), self.weights(tokens)
        with full_precision(value.device):
            features, weights = features.to(masks.dtype), weights.to(masks.dtype).sigmoid()
            mask = masks.flatten(1)[..., None]
            inside, outside = weights.chunk(2, 2)
            weights = torch.cat([inside * mask, outside * (1 - mask)], 2)
            ones = torch.ones_like(features[..., :1])
            mean: Tensor = weights.mT @ torch.cat([features, ones], 2) / features.shape[1]
            return mean


class Attention(nn.Module):
    """Multi-head attention; plain, so that it is the same on every device."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        """Return (B, M, C) for queries (B, M, C), keys and values (B, P, C), bias (B, M, P)."""
        q, k, v = (
            layer(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, query), (self.key, key), (self.value, value))
        )
        scores = q @ k.mT * q.shape[-1] ** -0.5
        if bias is not None:
            scores = scores + bias[:, None].to(scores.dtype)
        mixed: Tensor = self.out((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
        return mixed


class TransformerBlock(nn.Module):
    """Queries read the pixels, one another and think; pixels read the queries and are refined."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width, heads = sizes.embed, sizes.attention_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.from_pixels, self.among, self.from_queries = (
            Attention(width, heads) for _ in range(3)
        )
        self.think = nn.Sequential(
            nn.Linear(width, sizes.feed_forward), nn.ReLU(), nn.Linear(sizes.feed_forward, width)
        )
        self.refine = GatedResidualBlock(width)

    def forward(
        self, query: Tensor, pixels: Tensor, query_place: Tensor, pixel_place: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return new queries (B, Q, C) and pixels (B, C, h, w).

        Args:
            query: (B, Q, C).
            pixels: (B, C, h, w).
            query_place: added to queries where they are compared, (B, Q, C).
            pixel_place: added to pixels where they are compared, (B, P, C).
            bias: logarithm of the mask of each query, (B, Q, P).
        """
        tokens = pixels.flatten(2).mT
        normal = self.norms[0](query)
        query = query + self.from_pixels(normal + query_place, tokens + pixel_place, tokens, bias)
        normal = self.norms[1](query)
        place = normal + query_place
        query = query + self.among(place, place, normal, None)
        query = query + self.think(self.norms[2](query))
        normal = self.norms[3](tokens) + pixel_place
        tokens = tokens + self.from_queries(normal, query + query_place, query, None)
        return query, self.refine(tokens.mT.unflatten(2, pixels.shape[2:]))


class QueryTransformer(nn.Module):
    """Corrects fused pixel features by what is known of the object as a whole."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        width = sizes.embed
        self.query = nn.Parameter(torch.randn(sizes.queries, width))
        self.query_place = nn.Parameter(torch.randn(sizes.queries, width))
        self.to_query, self.to_query_place = nn.Linear(width, width), nn.Linear(width, width)
        self.pixels, self.pixel_place = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.blocks = nn.ModuleList(TransformerBlock(sizes) for _ in range(sizes.blocks))
        self.masks = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in range(sizes.blocks + 1))

    def forward(self, fused: Tensor, summaries: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return corrected pixel features and the mask logits before and after each block.

        Args:
            fused: (B O, C, h, w).
            summaries: the object memory, (B O, Q, C + 1); zeros when nothing is known.

        Returns:
            (B O, C, h, w), and logits (B O, h, w) each.
        """
        known = (summaries[..., :-1] / (summaries[..., -1:] + _AREA_EPSILON)).to(fused.dtype)
        query, place = (
            self.query + self.to_query(known),
            self.query_place + self.to_query_place(known),
        )
        where = sines(fused.shape[1], fused.shape[2], fused.shape[3], fused.device).flatten(1).T
        pixel_place = self.pixel_place(fused).flatten(2).mT
        pixel_place = pixel_place + where.to(pixel_place.dtype)
        pixels = self.pixels(fused)
        logits = [self._mask(0, pixels)]
        for number, block in enumerate(self.blocks):
            bias = _bias(logits[-1], query.shape[1])
            query, pixels = block(query, pixels, place, pixel_place, bias)
            logits.append(self._mask(number + 1, pixels))
        return pixels, logits

    def _mask(self, number: int, pixels: Tensor) -> Tensor:
        logits: Tensor = self.masks[number](functional.relu(pixels))[:, 0]
        return logits


def _bias(logits: Tensor, queries: int) -> Tensor:
    """Return the logarithm of how likely a query's part of the frame is, (B O, Q, P)."""
    flat = logits.detach().flatten(1)[:, None].float()
    inside, outside = functional.logsigmoid(flat), functional.logsigmoid(-flat)
    half = queries // 2
    return torch.cat([inside.expand(-1, half, -1), outside.expand(-1, queries - half, -1)], 1)
