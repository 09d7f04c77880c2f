"""Registries: the components of one kind by the names that a config gives them.

A component is registered by the module that defines it. The modules of the registry's own package
are discovered automatically; other packages name their modules in entry points of the registry's
group.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import TypeVar

Component = TypeVar("Component")
NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


class PluginError(Exception):
    """A component that another package defines cannot be used; the message says which and why."""


class Registry(Mapping[str, Component]):
    """The components of one kind by name, in the order of their registration.

    Modules are imported when the registry is first read.

    Args:
        kind: what a component is, for messages: "search method".
        package: dotted name of the package whose modules define the project's own components.
        group: entry point group in which other packages name modules that define more.
    """

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind, self._package, self._group = kind, package, group
        self._components: dict[str, Component] = {}
        self._loaded = False

    def add(self, name: str, component: Component) -> None:
        """Register a component.

        Raises:
            PluginError: another component has the name, or the name is not valid.
        """
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PluginError(
                f"{self.kind} {name!r}: not a valid name; valid: lower-case letters, digits and _,"
                " a letter first, at most 40"
            )
        if name in self._components:
            raise PluginError(f"{self.kind} {name!r} is defined twice")
        self._components[name] = component

    def __getitem__(self, name: str) -> Component:
        return self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, Component]:
        if not self._loaded:
            self._loaded = True  # before the imports: an imported module may read the registry
            try:
                self._load()
            except BaseException:
                self._loaded = False
                raise
        return self._components

    def _load(self) -> None:
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self._package}.{module.name}")
        for entry in sorted(entry_points(group=self._group), key=lambda entry: entry.name):
            try:
                entry.load()
            except Exception as error:
                distribution = entry.dist.name if entry.dist else "unknown"
                raise PluginError(
                    f"package {distribution}, entry point {entry.name!r} of {self._group}: cannot"
                    f" be loaded: {type(error).__name__}: {error}; fix or uninstall the package"
                ) from error
