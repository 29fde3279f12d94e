"""The gated delta rule for a video: one frame, all of whose tokens come at once, per write.

With P tokens of a frame, keys k and values v, X = exp(g) S the faded memory, G = k k^T and
N = k v^T summed over the tokens:

| rule | memory after the frame | |
|---|---|---|
| `implicit` | (I + beta/P G)^-1 (X + beta/P N) | stable for any beta >= 0, no order of tokens |
| `sequential` | the delta rule token by token, fading at the first | raster order; beta <= 2 |
| `mean` | X + beta/P (N - G X) | stable for beta <= 1; writes slowly |
| `sum` | X + beta (N - G X) | unstable beyond a few frames; only for published weights |

`implicit` minimises |S - X|^2 + beta/P sum |S^T k - v|^2, so one token of length 1 with beta is the
delta rule with beta / (1 + beta).

Axes: B batch, F frames, P tokens of a frame, H heads, J key heads (J divides H; consecutive heads
share a key head), R = H / J, K features of a key, V features of a value.

Source: `sum`: Wang et al., "GDKVM: Echocardiography Video Segmentation via Spatiotemporal Key-Value
Memory with Gated Delta Rule", ICCV 2025, arXiv:2512.10252. `sequential`: Yang, Kautz and
Hatamizadeh, arXiv:2412.06464. `implicit` is the proximal step of the loss whose gradient step the
delta rule is (Parikh and Boyd, "Proximal Algorithms", 2014).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from nnunetlike.core.errors import ShapeError, UsageError
from nnunetlike.networks.gated_delta import (
    Backend,
    full_precision,
    gated_delta_state,
    join_heads,
    memory_of,
    split_heads,
)

FrameRule = Literal["implicit", "sequential", "mean", "sum"]


def gated_delta_frames(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    *,
    rule: FrameRule = "implicit",
    scale: float | None = None,
    initial_state: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Return what each token reads after the write of its whole frame, and the last memory.

    Args:
        q: queries, (B, F, P, J, K).
        k: keys, (B, F, P, J, K).
        v: values, (B, F, P, H, V).
        beta: strength of each frame's write, (B, F, H).
        g: logarithm of the decay before each frame, (B, F, H).
        rule: how a frame is written.
        scale: factor of the queries; K ** -0.5 when absent.
        initial_state: memory before the first frame, (B, H, K, V); zeros when absent.
        backend: of the rule `sequential`.

    Returns:
        Answers (B, F, P, H, V) of the dtype of `q`, and the memory (B, H, K, V), float32 or
        float64. No argument is changed.

    Raises:
        ShapeError: the tensors do not fit, or there is no frame.
        UsageError: there is no such rule or backend, or the backend cannot run here.
    """
    axes = [x.ndim for x in (q, k, v, beta, g)]
    if axes != [5, 5, 5, 3, 3] or len({x.shape[1] for x in (q, k, v, beta, g)} - {0}) != 1:
        raise ShapeError(
            "frames come as q, k, v (B, F, P, heads, features) and beta, g (B, F, H) with one F "
            f"above 0, but got {', '.join(str(tuple(x.shape)) for x in (q, k, v, beta, g))}"
        )
    state, answers = initial_state, []
    for frame_q, *frame in zip(*(x.unbind(1) for x in (q, k, v, beta, g)), strict=True):
        state = write_frame(state, *frame, rule=rule, backend=backend)
        answers.append(read_frame(state, frame_q, scale=scale))
    assert state is not None
    return torch.stack(answers, dim=1), state


def write_frame(
    state: Tensor | None,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    *,
    rule: FrameRule = "implicit",
    backend: Backend = "auto",
) -> Tensor:
    """Return the memory after a frame, (B, H, K, V), float32 or float64.

    Args:
        state: memory before the frame, (B, H, K, V), or nothing for zeros; it is not changed.
        k: keys, (B, P, J, K).
        v: values, (B, P, H, V).
        beta: strength of the write, (B, H).
        g: logarithm of the decay before the write, (B, H).
        rule: how the frame is written.
        backend: of the rule `sequential`.

    Raises:
        ShapeError: the tensors do not fit, or there is no token.
        UsageError: there is no such rule or backend, or the backend cannot run here.
    """
    _check(state, k, v, beta, g, rule)
    if rule == "sequential":
        return _write_sequentially(state, k, v, beta, g, backend)
    with full_precision(v.device):
        memory = memory_of(k, v, state)
        key = split_heads(k.to(memory.dtype), k.shape[2])
        value = split_heads(v.to(memory.dtype), k.shape[2])
        decay, strength = (
            x.to(memory.dtype).unflatten(1, (k.shape[2], -1))[..., None, None]
            for x in (g.double().exp(), beta)
        )
        if rule != "sum":
            strength = strength / k.shape[1]
        faded = decay * memory
        gram, written = key.mT @ key, key.mT @ value
        if rule == "implicit":
            memory = _solve(strength * gram, faded + strength * written)
        else:
            memory = faded + strength * (written - gram @ faded)
        return memory.flatten(1, 2)


def read_frame(state: Tensor, q: Tensor, *, scale: float | None = None) -> Tensor:
    """Return what the memory holds under the queries, (B, P, H, V), of the dtype of `q`.

    Args:
        state: the memory, (B, H, K, V).
        q: queries, (B, P, J, K).
        scale: factor of the queries; K ** -0.5 when absent.

    Raises:
        ShapeError: memory and queries do not fit.
    """
    fits = state.ndim == q.ndim == 4 and state.shape[2] == q.shape[3]
    if not fits or state.shape[0] != q.shape[0] or state.shape[1] % q.shape[2]:
        raise ShapeError(
            f"a memory (B, H, K, V) is read by queries (B, P, J, K) with H a multiple of J, but "
            f"they are {tuple(state.shape)} and {tuple(q.shape)}"
        )
    factor = q.shape[3] ** -0.5 if scale is None else scale
    with full_precision(q.device):
        query = split_heads(q.to(state.dtype), q.shape[2])
        answers = query @ state.unflatten(1, (q.shape[2], -1))
        return join_heads(factor * answers).to(q.dtype)


def _check(
    state: Tensor | None, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, rule: FrameRule
) -> None:
    if rule not in get_args(FrameRule):
        raise UsageError(
            f"the memory has no rule called {rule!r} for frames; choose one of "
            f"{', '.join(get_args(FrameRule))}"
        )
    fits = (
        k.ndim == v.ndim == 4
        and k.shape[:2] == v.shape[:2]
        and min(*k.shape, *v.shape) > 0
        and v.shape[2] % k.shape[2] == 0
        and beta.shape == g.shape == (v.shape[0], v.shape[2])
        and (state is None or state.shape == (v.shape[0], v.shape[2], k.shape[3], v.shape[3]))
    )
    if not fits:
        given = {"state": state, "k": k, "v": v, "beta": beta, "g": g}
        raise ShapeError(
            "a frame has k (B, P, J, K), v (B, P, H, V) with H a multiple of J, beta and g (B, H), "
            "and at least one token, and its memory is (B, H, K, V), but got "
            + ", ".join(f"{name} {tuple(x.shape)}" for name, x in given.items() if x is not None)
        )


def _write_sequentially(
    state: Tensor | None, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, backend: Backend
) -> Tensor:
    tokens = k.shape[1]
    first_g = functional.pad(g[:, None], (0, 0, 0, tokens - 1))
    every_beta = beta[:, None].expand(-1, tokens, -1)
    return gated_delta_state(k, v, every_beta, first_g, initial_state=state, backend=backend)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """Return (I + matrix)^-1 right; NaN where the sum is not positive definite (or is NaN).

    Nothing raises here, so that the training loop meets values that are not finite as elsewhere.
    """
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    lower, failed = torch.linalg.cholesky_ex(identity + matrix)
    lower = lower.masked_fill((failed != 0)[..., None, None], torch.nan)
    half = torch.linalg.solve_triangular(lower, right, upper=False)
    solution: Tensor = torch.linalg.solve_triangular(lower.mT, half, upper=True)
    return solution
