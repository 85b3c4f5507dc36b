"""Concentrations of treatments: units, the logarithmic axis on which responses are fitted, and how they are written.

    molar = to_molar([0.01, 0.1, 1], "uM")          # mol/L, float64
    x = log10_concentration(molar)                  # -8, -7, -6
    format_concentration(molar[0])                  # "10 nM"

Plates that give steps of a dilution series instead of concentrations have the unit `DIMENSIONLESS`.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

# How many of the unit make one mol/L. These are whole numbers and a division by them is rounded once: 30 nM is 3e-8.
UNITS = {"M": 1.0, "mM": 1e3, "uM": 1e6, "µM": 1e6, "μM": 1e6, "nM": 1e9, "pM": 1e12, "fM": 1e15}
DIMENSIONLESS = "step"
ZEROS = ("decade", "nan")
_WRITTEN = ("M", "mM", "µM", "nM", "pM", "fM")
_MASS_PER_VOLUME = re.compile(
    r"\s*[kmuµμnpf]?g\s*(/|per|[·*. ])\s*[dcmuµμn]?l\s*(\^?-1|⁻¹)?\s*", re.IGNORECASE
)


def to_molar(values: Any, unit: str, *, where: str = "") -> np.ndarray:
    """Concentrations in mol/L (float64, the shape of `values`); steps of a dilution series stay as they are.

    values: numbers, or text that reads as numbers. unit: one of `UNITS` (case matters: mM is no MM) or
    `DIMENSIONLESS`. where: what the message of an error begins with, such as the name of the file.

    Raises:
        ValueError: an unknown unit, a mass per volume, or a value that is no number, negative or not finite.
    """
    prefix = f"{where}: " if where else ""
    factor = _factor(unit, prefix)
    return _checked(values, prefix) / factor


def _factor(unit: str, prefix: str) -> float:
    name = unit.strip()
    if name == DIMENSIONLESS:
        return 1.0
    if name in UNITS:
        return UNITS[name]
    if _MASS_PER_VOLUME.fullmatch(name):
        raise ValueError(
            f"{prefix}unit {unit!r} is a mass per volume; to convert it the compound's molar mass is needed: "
            f"divide by it (g/mol) and give mol/L"
        )
    raise ValueError(
        f"{prefix}unknown unit of concentration {unit!r}; known: {', '.join(UNITS)}, and {DIMENSIONLESS!r} for "
        f"steps of a dilution series"
    )


def _checked(values: Any, prefix: str) -> np.ndarray:
    """`values` as float64, all finite and 0 or more."""
    try:
        numbers = np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{prefix}concentrations must be numbers: {error}") from error
    wrong = ~np.isfinite(numbers) | (numbers < 0)
    if wrong.any():
        place = np.argwhere(wrong)[0]
        at = ", ".join(str(i) for i in place) or "0"
        raise ValueError(
            f"{prefix}concentration {numbers[tuple(place)]:g} at position {at} (from 0) is negative or not finite; "
            f"{wrong.sum()} such of {numbers.size}. Give 0 for vehicle controls and leave out what is unknown"
        )
    return numbers


def log10_concentration(values: Any, *, zero: str = "decade") -> np.ndarray:
    """Decimal logarithm of concentrations (float64, the shape of `values`).

    zero: where a concentration of 0 (vehicle) goes. "decade" places it one decade below the smallest positive
    concentration in `values`, where a figure can show it, or at NaN if no concentration is positive; "nan" leaves
    it out.

    Raises:
        ValueError: an unknown `zero`, or a value that is no number, negative or not finite.
    """
    if zero not in ZEROS:
        raise ValueError(f"zero={zero!r}: choose one of {', '.join(ZEROS)}")
    numbers = _checked(values, "")
    positive = numbers > 0
    found = np.full(numbers.shape, np.nan)
    np.log10(numbers, out=found, where=positive)
    if zero == "decade" and positive.any():
        found[~positive] = found[positive].min() - 1
    return found


def format_concentration(molar: float, *, unit: str = "M") -> str:
    """A concentration in three digits and the unit that fits it best: "12.3 nM", "0", or "undefined" for NaN.

    unit: what `molar` is in, "M" or `DIMENSIONLESS` ("step 3.5").
    """
    if unit not in ("M", DIMENSIONLESS):
        raise ValueError(f"unit={unit!r}: must be 'M' or {DIMENSIONLESS!r}; convert with to_molar")
    if np.isnan(molar):
        return "undefined"
    rounded = float(f"{float(_checked(molar, '')):.3g}")  # first, so that 999.9 nM becomes 1 µM
    if unit == DIMENSIONLESS:
        return f"step {rounded:g}"
    if rounded == 0:
        return "0"
    name = fitting_unit([rounded])
    return f"{rounded * UNITS[name]:.3g} {name}"


def fitting_unit(molar: Sequence[float] | np.ndarray) -> str:
    """The largest unit in which the smallest positive of `molar` is at least 1 (M if none is positive)."""
    numbers = np.asarray(molar, np.float64)
    positive = numbers[numbers > 0]
    smallest = positive.min() if positive.size else 1.0
    # A hair of tolerance: 1e-9 * 1e9 may fall short of 1.
    return next((name for name in _WRITTEN if smallest * UNITS[name] >= 1 - 1e-9), _WRITTEN[-1])
