"""Training in several processes that share each batch: one per GPU, on one machine or several.

Every process holds the whole network. Gradients are averaged over processes, and the losses are
weighted so that this average is the gradient of the whole batch. Before each step the processes
agree on whether to go on, which also finds one that is late; whatever takes long (unpacking,
validating) is waited for outside any collective.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from nnunetlike.core.errors import PeerError, UsageError
from nnunetlike.training.attempts import agree_on_name
from nnunetlike.training.runtime import Precision, SingleProcess

T = TypeVar("T")
TIMEOUT_S = 600.0
"""How long the processes wait for one another within a step."""

FAREWELL_S = 10.0
ADDRESS = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE")
LOOK_S = 0.1
logger = logging.getLogger(__name__)


class Distributed(SingleProcess):
    """The runtime of one of several processes; `connected` makes it.

    Args:
        device: of this process.
        precision: see `SingleProcess`.
        peers: the connection to the other processes.
        legacy_dice: let the gradient of a Dice over the whole batch be too small by the number of
            processes, as in nnU-Net v1.
    """

    def __init__(
        self, device: torch.device, precision: Precision, peers: Peers, *, legacy_dice: bool = False
    ) -> None:
        super().__init__(device, precision)
        self.peers = peers
        self.rank = peers.rank
        self.world_size = peers.world_size
        self.is_main = peers.rank == 0
        self.legacy_dice = legacy_dice

    def wrap(self, objective: nn.Module) -> nn.Module:
        """Return the objective so that gradients are averaged over processes.

        Weights are those of process 0 from then on.
        """
        with self.peers.explained("starting to train"):
            return nn.parallel.DistributedDataParallel(
                objective,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                find_unused_parameters=bool(getattr(objective, "leaves_heads_out", False)),
            )

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes, without gradient."""
        found = value.detach().clone()
        with self.peers.explained("adding up"):
            dist.all_reduce(found)
        return found

    def total(self) -> Callable[[Tensor], Tensor]:
        """Return a sum over all processes through which gradients flow.

        Every process computes the same function of the sum, so the gradient of one is that of all;
        as gradients are averaged afterwards, it is multiplied by the number of processes here.
        nnU-Net v1 omits that (`legacy_dice`).
        """
        factor = 1 if self.legacy_dice else self.world_size

        def total(value: Tensor) -> Tensor:
            """Return the sum of a value over all processes."""
            with self.peers.explained("adding up the Dice"):
                return _Total.apply(value, factor)  # type: ignore[no-any-return]

        return total

    def any(self, value: bool) -> bool:
        """Tell whether the value is true in any process."""
        return self.peers.any(value)

    def gather(self, items: Sequence[str]) -> list[str]:
        """Return the items of all processes, in their order."""
        return self.peers.gather(items)

    def first(self, value: T) -> T:
        """Return the value that process 0 has."""
        return self.peers.first(value)

    def meet(self, place: str) -> None:
        """Return when every process has come to a place; it may take as long as it takes."""
        self.peers.meet(place)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float) -> bool:
        """Do a step as `SingleProcess` does; all processes take it or none.

        The gradient is the same in all, but a loss need not be finite where another is.
        """
        with self.peers.explained("averaging gradients"):
            return super().step(self.sum(loss) - loss.detach() + loss, optimizer, clip_norm)


class _Total(torch.autograd.Function):
    """The sum over processes; backwards the gradient, times a factor."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, factor: int) -> Tensor:
        """Return the sum of a value over all processes."""
        ctx.factor = factor
        total = value.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient times the factor; the factor has none."""
        return gradients[0] * ctx.factor, None


@dataclass
class Peers:
    """The other processes of a run.

    Attributes:
        rank: number of this process.
        world_size: number of processes.
        store: what all processes can read and write.
        group: of small messages between CPUs, whatever the device.
        timeout_s: how long to wait within a step.
    """

    rank: int
    world_size: int
    store: Store
    group: Any
    timeout_s: float = TIMEOUT_S

    def any(self, value: bool) -> bool:
        """Tell whether the value is true in any process; all must ask."""
        found = torch.tensor(int(value))
        with self.explained("the next step"):
            dist.all_reduce(found, op=dist.ReduceOp.MAX, group=self.group)
        return bool(found)

    def gather(self, items: Sequence[str]) -> list[str]:
        """Return the items of all processes; all must ask."""
        found: list[Any] = [None] * self.world_size
        with self.explained("telling one another"):
            dist.all_gather_object(found, list(items), group=self.group)
        return [item for part in found for item in part]

    def first(self, value: T) -> T:
        """Return the value that process 0 has; all must ask."""
        box: list[Any] = [value]
        with self.explained("starting"):
            dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]  # type: ignore[no-any-return]

    def meet(self, place: str) -> None:
        """Return when every process has come to a place; each place is used once.

        Raises:
            PeerError: the process that keeps the list is gone.
        """
        try:
            come = self.store.add(f"meet/{place}", 1)
            while come < self.world_size:
                time.sleep(LOOK_S)
                come = self.store.add(f"meet/{place}", 0)
        except RuntimeError as error:
            raise PeerError(f"another process of this run ended ({_first_line(error)})") from None

    def leave(self) -> None:
        """Part in peace: process 0, which keeps the list, goes last."""
        with suppress(RuntimeError):
            self.store.add("left", 1)
            end = time.monotonic() + FAREWELL_S
            while self.rank == 0 and time.monotonic() < end:
                if self.store.add("left", 0) >= self.world_size:
                    break
                time.sleep(LOOK_S)
        dist.destroy_process_group()

    @contextmanager
    def explained(self, what: str) -> Iterator[None]:
        """Say what became of the others when a collective in this block fails.

        Raises:
            PeerError: it did.
        """
        begin = time.monotonic()
        try:
            yield
        except RuntimeError as error:
            if not _is_of_peers(error):
                raise
            late = self._late(waited_s=time.monotonic() - begin)
            if not late:
                raise PeerError(
                    f"another process of this run ended while process {self.rank} was at "
                    f"{what} ({_first_line(error)}). Its own message says why"
                ) from None
            names = ", ".join(map(str, late))
            raise PeerError(
                f"process {names} of {self.world_size} (counted from 0) did not come to {what} "
                f"within {self.timeout_s:g} s. Look at what it waits for; if its machine is only "
                "slow, give more time with --ddp_timeout SECONDS"
            ) from None

    def _late(self, waited_s: float) -> list[int]:
        """Return the processes for which others waited in vain; none if the wait was broken off.

        Who has waited for long says so; whoever has not said so a little later was waited for. When
        the first gives up, its connections close, so the others learn of it that way.
        """
        with suppress(RuntimeError):
            if waited_s >= self.timeout_s / 2:
                self.store.set(f"waited/{self.rank}", "1")
                time.sleep(1)
            came = [r for r in range(self.world_size) if self.store.check([f"waited/{r}"])]
            return [r for r in range(self.world_size) if r not in came] if came else []
        return []


def _is_of_peers(error: RuntimeError) -> bool:
    """Tell whether an error comes from the connection to other processes."""
    marks = ("gloo", "NCCL", "nccl", "Connection closed by peer", "imed out", "Connection reset")
    return isinstance(error, dist.DistError) or any(mark in str(error) for mark in marks)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def connect(device: torch.device, timeout_s: float = TIMEOUT_S) -> Peers:
    """Join the processes that the environment names (`MASTER_ADDR`, `RANK`, `WORLD_SIZE`, ...).

    NCCL connects GPUs, gloo CPUs.

    Raises:
        UsageError: the environment names none.
        PeerError: the others did not come in time.
    """
    missing = [name for name in ADDRESS if name not in os.environ]
    if missing:
        raise UsageError(
            f"{', '.join(missing)} not set: start this with torchrun, with python -m "
            "torch.distributed.launch, or with nnUNet_train ... --nproc N"
        )
    timeout = timedelta(seconds=timeout_s)
    try:
        store, rank, world_size = next(iter(rendezvous("env://", timeout=timeout)))
        store = PrefixStore(agree_on_name(store, rank, world_size, timeout_s), store)
        backend = "nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(
            backend, store=PrefixStore("group", store), rank=rank, world_size=world_size,
            timeout=timeout,
        )  # fmt: skip
        group = dist.new_group(backend="gloo", timeout=timeout)
    except (RuntimeError, PeerError) as error:
        address = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise PeerError(f"the processes did not find one another at {address}: {error}") from None
    return Peers(rank, world_size, PrefixStore("nnunetlike", store), group, timeout_s)
