"""`--dask ADDRESS`: cases go to an existing Dask cluster instead of this machine's processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nnunetlike.core.dask_cluster import dask_cluster
from nnunetlike.core.parallel import Executor
from nnunetlike.run.command_line import CommandParser


def add_dask_option(parser: CommandParser, instead_of: str) -> None:
    """Add `--dask` to a parser.

    Args:
        parser: of the command.
        instead_of: options that do not count with it, since the cluster decides.
    """
    parser.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="send cases to the Dask cluster whose scheduler listens there, tcp://HOST:8786 for "
        f"example; its workers must see the same folders. {instead_of} do not count then",
    )


@contextmanager
def executor_at(address: str | None) -> Iterator[Executor | None]:
    """Give the cluster at an address; None without one.

    Raises:
        UsageError: Dask is not installed, or the address is none.
        ResourceError: no scheduler answers there.
    """
    if address is None:
        yield None
        return
    with dask_cluster(address) as cluster:
        yield cluster
