"""The gated delta rule: a memory of fixed size, written and read token by token.

The memory of a head is a matrix S, a linear map from keys to values. A token fades it, erases what
it held under the token's key, writes the token's value there, and is answered from the result:

    S <- exp(g) S        e <- beta (v - k^T S)        S <- S + k e^T        o <- scale q^T S

`backend="sequential"` does just that. `backend="torch"` does the same for a chunk of L tokens at
once, with c the running sum of g in the chunk, D_ij = exp(c_i - c_j) for i >= j and 0 else:

    A = I + tril(diag(beta) (K K^T * D), -1)
    delta = A^-1 diag(beta) (V - diag(e^c) K S)
    O = scale (diag(e^c) Q S + (Q K^T * D) delta)
    S <- e^(c_L) S + (diag(e^(c_L - c)) K)^T delta

(The WY form's U - W S is solved here as one: that takes fewer operations than W and keeps less.)

Memory and gates are float32 (float64 if an input is) also under autocast, and running sums of gates
are float64: in float32 a strong gate would drown the weak ones after it.

Axes: B batch, T tokens, H heads, J key heads (J divides H, mostly J = H; consecutive heads share a
key head), R = H / J, K features of a key, V features of a value; N chunks of L tokens.

Source: Yang, Kautz and Hatamizadeh, "Gated Delta Networks: Improving Mamba2 with Delta Rule",
arXiv:2412.06464; the chunked form: Yang et al., "Parallelizing Linear Transformers with the Delta
Rule over Sequence Length", arXiv:2406.06484.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from nnunetlike.core.errors import ShapeError, UsageError
from nnunetlike.networks import gated_delta_kernels

Backend = Literal["auto", "torch", "sequential", "fla"]

_LOG_OF_ZERO = -800.0
"""exp() of this and of everything below is 0, in float64 too; so a gate of -inf is one of these."""


def gated_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    *,
    scale: float | None = None,
    initial_state: Tensor | None = None,
    chunk_size: int = 64,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Return what each token reads after its own write, and the memory after the last token.

    Args:
        q: queries, (B, T, J, K), used as they are.
        k: keys, (B, T, J, K), used as they are; the memory is stable for keys of length 1 at most
            and beta in [0, 2].
        v: values, (B, T, H, V).
        beta: strength of the writes, (B, T, H); 0 writes nothing, 1 replaces what the key held.
        g: logarithm of the decay, (B, T, H); 0 keeps everything, -inf forgets everything.
        scale: factor of the queries; K ** -0.5 when absent.
        initial_state: memory before the first token, (B, H, K, V); zeros when absent.
        chunk_size: tokens computed at once; results do not depend on it. Kernels choose their own.
        backend: `torch` (chunks), `sequential` (token by token), `fla` (kernels of fla-core on a
            CUDA device), or `auto`: kernels where they apply and the precision is half anyway,
            else `torch`.

    Returns:
        Answers (B, T, H, V) of the dtype of `v`, and the memory (B, H, K, V), float32 or float64.
        No argument is changed.

    Raises:
        ShapeError: the tensors do not fit, or there is no token.
        UsageError: there is no such backend, or it cannot run here.
    """
    _check(q, k, v, beta, g, initial_state)
    scale = k.shape[-1] ** -0.5 if scale is None else scale
    if _chosen(backend, k, v) == "fla":
        return gated_delta_kernels.run(q, k, v, beta, g, scale, initial_state)
    with full_precision(v.device):
        state = memory_of(k, v, initial_state)
        writes = _Writes.of(k, v, beta, g, state.dtype)
        query = split_heads(q.to(state.dtype), k.shape[2])
        if backend == "sequential":
            answers, state = _one_by_one(query, writes, state)
        else:
            chunks = _Chunks.of(writes, chunk_size)
            walk = _walk(chunks, state)
            answers, state = _read(query, chunks, walk), walk.state
        return join_heads(scale * answers).to(v.dtype), state.flatten(1, 2)


def gated_delta_state(
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    *,
    initial_state: Tensor | None = None,
    chunk_size: int = 64,
    backend: Backend = "auto",
) -> Tensor:
    """Return the memory (B, H, K, V) after all tokens, without reading.

    Arguments, precision and errors are those of `gated_delta_rule`.
    """
    _check(k, k, v, beta, g, initial_state)
    if backend == "sequential" or _chosen(backend, k, v) == "fla":
        return gated_delta_rule(k, k, v, beta, g, initial_state=initial_state, backend=backend)[1]
    with full_precision(v.device):
        state = memory_of(k, v, initial_state)
        writes = _Writes.of(k, v, beta, g, state.dtype)
        return _walk(_Chunks.of(writes, chunk_size), state).state.flatten(1, 2)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which autocast leaves tensors of the device alone."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def memory_of(k: Tensor, v: Tensor, state: Tensor | None) -> Tensor:
    """Return the memory by key head, (B, J, R, K, V), in float32, or float64 if anything is.

    Args:
        k: keys, (B, T, J, K).
        v: values, (B, T, H, V).
        state: the memory, (B, H, K, V), or nothing for zeros.
    """
    given = [k, v] if state is None else [k, v, state]
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in given), torch.float32)
    if state is None:
        state = v.new_zeros((v.shape[0], v.shape[2], k.shape[3], v.shape[3]), dtype=dtype)
    memory: Tensor = state.to(dtype).unflatten(1, (k.shape[2], -1))
    return memory


def split_heads(tokens: Tensor, key_heads: int) -> Tensor:
    """Return (B, T, H, ...) as (B, J, R, T, ...)."""
    split: Tensor = tokens.unflatten(2, (key_heads, -1))
    return split.movedim(1, 3)


def join_heads(tokens: Tensor) -> Tensor:
    """Return (B, J, R, T, ...) as (B, T, H, ...)."""
    return tokens.movedim(3, 1).flatten(2, 3)


def _check(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, state: Tensor | None) -> None:
    fits = (
        k.ndim == v.ndim == 4
        and q.shape == k.shape
        and k.shape[:2] == v.shape[:2]
        and min(*k.shape, *v.shape) > 0
        and v.shape[2] % k.shape[2] == 0
        and beta.shape == g.shape == v.shape[:3]
        and (state is None or state.shape == (v.shape[0], v.shape[2], k.shape[3], v.shape[3]))
    )
    if not fits:
        given = {"q": q, "k": k, "v": v, "beta": beta, "g": g, "initial_state": state}
        raise ShapeError(
            "the memory takes q and k (B, T, J, K), v (B, T, H, V) with H a multiple of J, beta "
            "and g (B, T, H), initial_state (B, H, K, V), and at least one token, but got "
            + ", ".join(f"{name} {tuple(x.shape)}" for name, x in given.items() if x is not None)
        )


def _chosen(backend: Backend, k: Tensor, v: Tensor) -> Backend:
    if backend not in get_args(Backend):
        raise UsageError(
            f"the memory has no backend called {backend!r}; choose one of "
            f"{', '.join(get_args(Backend))}"
        )
    if backend == "fla":
        gated_delta_kernels.require(k)
    elif backend == "auto" and gated_delta_kernels.worthwhile(k, v):
        return "fla"
    return backend


@dataclass(frozen=True)
class _Writes:
    """What tokens write, by key head."""

    key: Tensor
    """(B, J, 1, T, K)."""

    value: Tensor
    """(B, J, R, T, V)."""

    beta: Tensor
    """(B, J, R, T)."""

    log_decay: Tensor
    """(B, J, R, T), float64."""

    @classmethod
    def of(cls, k: Tensor, v: Tensor, beta: Tensor, g: Tensor, dtype: torch.dtype) -> _Writes:
        """Return what `gated_delta_rule` was given, by heads of keys and in one type."""
        heads = k.shape[2]
        return cls(
            key=split_heads(k.to(dtype), heads),
            value=split_heads(v.to(dtype), heads),
            beta=split_heads(beta.to(dtype), heads),
            log_decay=split_heads(g.double(), heads).clamp(min=_LOG_OF_ZERO),
        )


def _one_by_one(query: Tensor, writes: _Writes, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return the answers (B, J, R, T, V) and the memory: the rule as it is printed."""
    answers = []
    decay = writes.log_decay.exp().to(state.dtype)
    for t in range(query.shape[3]):
        key = writes.key[..., t, :, None]
        state = decay[..., t, None, None] * state
        known = (key * state).sum(-2)
        error = writes.beta[..., t, None] * (writes.value[..., t, :] - known)
        state = state + key * error[..., None, :]
        answers.append((query[..., t, :, None] * state).sum(-2))
    return torch.stack(answers, dim=3), state


@dataclass(frozen=True)
class _Chunks:
    """Tokens in chunks; the last is filled up with tokens that change nothing."""

    key: Tensor
    """(B, J, 1, N, L, K)."""

    value: Tensor
    """(B, J, R, N, L, V)."""

    beta: Tensor
    """(B, J, R, N, L)."""

    decay: Tensor
    """How much of the memory before the chunk each token finds, (B, J, R, N, L)."""

    decay_between: Tensor
    """How much each token (row) finds of what another wrote, (B, J, R, N, L, L); 0 if later."""

    @classmethod
    def of(cls, writes: _Writes, chunk_size: int) -> _Chunks:
        """Return writes cut into chunks of so many tokens, with what decays within each."""
        if chunk_size < 1:
            raise UsageError(f"a chunk has one token at least, but chunk_size is {chunk_size}")
        size = min(chunk_size, writes.key.shape[3])
        dtype = writes.key.dtype
        log_decay = _cut(writes.log_decay, size)
        forgets = log_decay <= _LOG_OF_ZERO
        # Counted apart: in the running sum they would round off what weak gates after them add.
        log, forgotten = log_decay.masked_fill(forgets, 0).cumsum(-1), forgets.cumsum(-1)
        apart = forgotten[..., :, None] != forgotten[..., None, :]
        later = torch.ones(size, size, dtype=torch.bool, device=log.device).triu(1)
        # Masked before exp: a later token's logarithm is positive and may be too large for it.
        between = (log[..., :, None] - log[..., None, :]).to(dtype)
        return cls(
            key=_cut(writes.key, size),
            value=_cut(writes.value, size),
            beta=_cut(writes.beta, size),
            decay=log.masked_fill(forgotten > 0, -torch.inf).to(dtype).exp(),
            decay_between=between.masked_fill(apart | later, -torch.inf).exp(),
        )

    @property
    def size(self) -> int:
        """Tokens of a chunk, L."""
        return self.key.shape[4]


def _cut(tokens: Tensor, size: int) -> Tensor:
    """Return (B, J, R, T, ...) as (B, J, R, N, L, ...), with zeros after the last token."""
    if missing := -tokens.shape[3] % size:
        tokens = functional.pad(tokens, (0, 0) * (tokens.ndim - 4) + (0, missing))
    chunks: Tensor = tokens.unflatten(3, (-1, size))
    return chunks


@dataclass(frozen=True)
class _Walk:
    """What a walk through the chunks found."""

    entries: Tensor
    """The memory before each chunk, (B, J, R, N, K, V)."""

    deltas: Tensor
    """What each token added under its key, (B, J, R, N, L, V)."""

    state: Tensor
    """The memory after the last chunk, (B, J, R, K, V)."""


def _walk(chunks: _Chunks, state: Tensor) -> _Walk:
    beta, decay = chunks.beta[..., None], chunks.decay[..., None]
    # Its diagonal and what is above are not looked at: the system is unit lower triangular.
    system = beta * (chunks.key @ chunks.key.mT) * chunks.decay_between
    kept_key = (chunks.decay_between[..., -1, :, None] * chunks.key).mT
    kept = chunks.decay[..., -1, None, None]
    parts = (system, beta * chunks.value, beta * decay * chunks.key, kept_key, kept)
    entries, deltas = [], []
    for matrix, value, key, writing_key, fading in zip(*(x.unbind(3) for x in parts), strict=True):
        entries.append(state)
        error = value - key @ state
        delta = torch.linalg.solve_triangular(matrix, error, upper=False, unitriangular=True)
        deltas.append(delta)
        state = fading * state + writing_key @ delta
    return _Walk(torch.stack(entries, dim=3), torch.stack(deltas, dim=3), state)


def _read(query: Tensor, chunks: _Chunks, walk: _Walk) -> Tensor:
    """Return the answers, (B, J, R, T, V)."""
    cut = _cut(query, chunks.size)
    from_before = chunks.decay[..., None] * (cut @ walk.entries)
    from_chunk = (cut @ chunks.key.mT * chunks.decay_between) @ walk.deltas
    return (from_before + from_chunk).flatten(3, 4)[..., : query.shape[3], :]
