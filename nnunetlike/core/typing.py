"""Names for the array types that travel between packages."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.floating[Any]]
IntArray: TypeAlias = npt.NDArray[np.integer[Any]]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
LabelMap: TypeAlias = npt.NDArray[np.integer[Any]]
Size: TypeAlias = tuple[int, ...]
Shape3: TypeAlias = tuple[int, int, int]
Spacing: TypeAlias = tuple[float, ...]
Spacing3: TypeAlias = tuple[float, float, float]
JSON: TypeAlias = dict[str, Any]
