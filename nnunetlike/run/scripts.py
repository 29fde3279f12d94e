"""Where the console scripts enter: `scripts.predict()` runs `nnunetlike.run.predict.main()`.

A worker process imports the script that started it. That import ends here, so workers do not load
torch, and neither does a console script before it needs to.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable


def __getattr__(name: str) -> Callable[[], int]:
    """Return a function that runs the command of module `name`."""
    if name.startswith("_"):
        raise AttributeError(name)

    def enter() -> int:
        """Run the command and return its exit status."""
        main: Callable[[], int] = importlib.import_module(f"nnunetlike.run.{name}").main
        return main()

    return enter
