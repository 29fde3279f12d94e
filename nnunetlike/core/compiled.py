"""Machine code for array loops: numba's `njit`, typed, cached on disk where a folder allows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Return `function` compiled on first call, without the GIL and without fast-math.

    Results are those of IEEE arithmetic in the order written. Where neither the package folder nor
    the user's cache folder can be written, each process compiles for itself.
    """
    try:
        return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # numba found no folder for its cache
        return cast(F, numba.njit(nogil=True, error_model="numpy")(function))
