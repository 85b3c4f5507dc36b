"""Find an extension by name: `registry.lookup("coos.models", "deeploc")` imports `coos.models.deeploc`."""

import importlib
import pkgutil
from types import ModuleType


def available(package: str) -> tuple[str, ...]:
    """Sorted names of the public modules in `package`, without importing them."""
    path = importlib.import_module(package).__path__
    return tuple(sorted(info.name for info in pkgutil.iter_modules(path) if not info.name.startswith("_")))


def lookup(package: str, name: str) -> ModuleType:
    """Import `package.name`. An unknown name raises ValueError with the known ones."""
    known = available(package)
    if name not in known:
        raise ValueError(f"{package}: no {name!r}; available: {', '.join(known)}")
    return importlib.import_module(f"{package}.{name}")
