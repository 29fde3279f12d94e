"""The three folders of nnU-Net as environment variables name them, in v1's and v2's spelling.

v1's variable wins where both are set. Variables are read when a folder is asked for; importing this
module does nothing.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from nnunetlike.core.errors import UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """What a variable says."""

    variable: str
    text: str
    """Value as set."""

    root: Path
    """The folder it names."""

    home: Path
    """The folder that holds what it is for."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """One of the three folders and the two names of its variable."""

    purpose: str
    v1: str
    v2: str
    below_v1: str = ""
    """Sub-folder of v1's root that is the home."""

    below_v2: str = ""

    def find(self) -> Setting | None:
        """Return what the variables say, or None if neither is set.

        Raises:
            UsageError: the value begins with the `~` of an unknown user.
        """
        first = _read(self.v1, self.below_v1)
        if self.v1 == self.v2:
            return first
        second = _read(self.v2, self.below_v2)
        if first is not None and second is not None and first.home != second.home:
            _warn_of_difference(first, second)
        return first or second

    def setting(self) -> Setting:
        """Return what the variables say.

        Raises:
            UsageError: neither is set.
        """
        found = self.find()
        if found is None:
            raise UsageError(
                f"the environment variable {self.v1} is not set{self._nor_v2}; it names the folder "
                f"for {self.purpose}. Set it with: export {self.v1}=/path/to/folder (nnUNet_env "
                "shows what is set)"
            )
        return found

    @property
    def _nor_v2(self) -> str:
        if self.v1 == self.v2:
            return " (nnU-Net v2 calls it so too)"
        return f", nor is {self.v2}, nnU-Net v2's name for it"


RAW = Home(
    purpose="raw data",
    v1="nnUNet_raw_data_base",
    v2="nnUNet_raw",
    below_v1="nnUNet_raw_data",
)
PREPROCESSED = Home(purpose="preprocessed data", v1="nnUNet_preprocessed", v2="nnUNet_preprocessed")
RESULTS = Home(
    purpose="trained models",
    v1="RESULTS_FOLDER",
    v2="nnUNet_results",
    below_v1="nnUNet",
    below_v2="nnUNet",
)
HOMES = (RAW, PREPROCESSED, RESULTS)


def _read(variable: str, below: str) -> Setting | None:
    text = os.environ.get(variable, "")
    value = text.strip().strip("'\"").strip()
    if not value:
        return None
    try:
        root = Path(value).expanduser().absolute()
    except RuntimeError:
        raise UsageError(
            f"the environment variable {variable} is {text!r}, but there is no such user. Write "
            "the path out"
        ) from None
    return Setting(variable, text, root, root / below)


@cache
def _warn_of_difference(first: Setting, second: Setting) -> None:
    logger.warning(
        "%s and %s name different folders (%s, %s); %s is used. Unset one of them",
        first.variable,
        second.variable,
        first.home,
        second.home,
        first.variable,
    )
