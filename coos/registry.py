"""Find an extension by name: `registry.lookup("coos.models", "deeploc")` imports `coos.models.deeploc`."""

import importlib
import pkgutil
from types import ModuleType


def available(package: str) -> tuple[str, ...]:
    """Sorted names of the public modules in `package`, without importing them.

    Modules that the package lists in `HELPERS` serve the others and are no entries.
    """
    imported = importlib.import_module(package)
    helpers = getattr(imported, "HELPERS", ())
    names = (info.name for info in pkgutil.iter_modules(imported.__path__))
    return tuple(sorted(name for name in names if not name.startswith("_") and name not in helpers))


def lookup(package: str, name: str) -> ModuleType:
    """Import `package.name`. An unknown name raises ValueError with the known ones."""
    known = available(package)
    if name not in known:
        raise ValueError(f"{package}: no {name!r}; available: {', '.join(known)}")
    return importlib.import_module(f"{package}.{name}")
