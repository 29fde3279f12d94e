"""Components by name, found in one package when the first of them is asked for.

A module of that package registers its parts on import (`NETWORKS.add("unet", UNetSpec)`); the
registry imports the package's modules on first use, so adding a part means adding a file. Code
outside registers through the entry-point group `nnunetlike.plugins`.
"""

from __future__ import annotations

import difflib
import importlib
import logging
import pkgutil
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from nnunetlike.core.errors import UsageError

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Registry(Generic[T]):
    """Components of one kind, by unique name.

    Args:
        kind: what the components are, in the singular, for messages ("trainer").
        package: dotted name of the package whose modules register them.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self._items: dict[str, T] = {}
        self._searched = False

    def add(self, name: str, item: T) -> T:
        """Register `item` under `name` and return it.

        Raises:
            ValueError: another component has that name already.
        """
        if self._items.get(name, item) != item:
            raise ValueError(f"two {self.kind}s are called {name!r}; rename one of them")
        self._items[name] = item
        return item

    def get(self, name: str) -> T:
        """Return the component called `name`.

        Raises:
            UsageError: nothing is called so; the message names the nearest and all known names.
        """
        self._search()
        if name in self._items:
            return self._items[name]
        near = difflib.get_close_matches(name, self._items, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UsageError(
            f"no {self.kind} is called {name!r}.{hint} Known: {', '.join(self.names())}. "
            f"To add one, put a module that registers it into {self.package}."
        )

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._search()
        return sorted(self._items)

    def name_of(self, item: T) -> str:
        """Return the name `item` is registered under."""
        self._search()
        return next(name for name, known in self._items.items() if known == item)

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        _load_plugins()


_plugins_loaded: list[bool] = []


def _load_plugins() -> None:
    """Import what other distributions offer; a broken one is reported and left out."""
    if _plugins_loaded:
        return
    _plugins_loaded.append(True)
    for point in entry_points(group="nnunetlike.plugins"):
        try:
            point.load()
        except Exception as error:  # noqa: BLE001  a stranger's code may fail in any way
            logger.warning("plugin %s could not be loaded and is left out: %s", point.value, error)
