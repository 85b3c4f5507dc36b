"""Concentrations: units against Python's decimal numbers, zeros, refusals, and text that reads back."""

import decimal
import subprocess
import sys

import numpy as np
import pytest

from coos import concentrations as c

EXPONENTS = {"M": 0, "mM": -3, "uM": -6, "µM": -6, "μM": -6, "nM": -9, "pM": -12, "fM": -15}


@pytest.mark.parametrize("unit", c.UNITS)
def test_units_are_powers_of_ten(unit):
    texts = ["0", "1", "30", "500", "12.5"]
    expected = [float(decimal.Decimal(text).scaleb(EXPONENTS[unit])) for text in texts]
    for values in (texts, [float(text) for text in texts]):
        found = c.to_molar(values, f" {unit} ")
        assert found.dtype == np.float64
        assert found.tolist() == expected


def test_steps_stay_as_they_are():
    assert c.to_molar([[1, 2], [3, 4.5]], c.DIMENSIONLESS).tolist() == [[1, 2], [3, 4.5]]
    assert c.to_molar(3, "nM").shape == ()


@pytest.mark.parametrize("unit", ["ug/mL", "µg/ml", "mg/L", "g/l", "ng/uL", "mg L-1", "mg·L⁻¹", "kg per l"])
def test_mass_per_volume_asks_for_the_molar_mass(unit):
    with pytest.raises(ValueError, match=r"^plate\.csv: .*mass per volume.*molar mass is needed"):
        c.to_molar([1.0], unit, where="plate.csv")


@pytest.mark.parametrize("unit", ["MM", "um", "NM", "", "percent", "M/L", "steps"])
def test_unknown_units_list_the_known_ones(unit):
    with pytest.raises(ValueError, match=r"unknown unit.*M, mM, uM, µM, μM, nM, pM, fM, and 'step'"):
        c.to_molar([1.0], unit)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, -2.5, -3], r"^t\.csv: concentration -2\.5 at position 1 .*; 2 such of 3"),
        ([[1, 2], [np.nan, 1]], r"concentration nan at position 1, 0 .*; 1 such of 4"),
        ([np.inf], "concentration inf at position 0"),
        (-1.0, "concentration -1 at position 0"),
        (["1", "high"], r"^t\.csv: concentrations must be numbers: .*high"),
        ([[1], [1, 2]], "must be numbers"),
    ],
)
def test_what_is_no_concentration_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        c.to_molar(values, "nM", where="t.csv")
    with pytest.raises(ValueError, match=message.removeprefix(r"^t\.csv: ")):
        c.log10_concentration(values)


def test_vehicle_is_a_decade_below_the_lowest_or_left_out():
    values = np.array([[0, 1e-6], [1e-8, 0]])
    np.testing.assert_allclose(c.log10_concentration(values), [[-9, -6], [-8, -9]])
    np.testing.assert_allclose(c.log10_concentration(values, zero="nan"), [[np.nan, -6], [-8, np.nan]])
    assert np.isnan(c.log10_concentration([0, 0])).all()
    assert c.log10_concentration([]).shape == (0,)
    with pytest.raises(ValueError, match="zero='ten': choose one of decade, nan"):
        c.log10_concentration(values, zero="ten")


@pytest.mark.parametrize(
    ("molar", "text"),
    [
        (1.23e-8, "12.3 nM"),
        (9.999e-7, "1 µM"),
        (9.994e-7, "999 nM"),
        (1e-9, "1 nM"),
        (2.5, "2.5 M"),
        (5e-18, "0.005 fM"),
        (0, "0"),
        (np.nan, "undefined"),
    ],
)
def test_text(molar, text):
    assert c.format_concentration(molar) == text


def test_text_reads_back():
    for molar in 10.0 ** np.random.default_rng(0).uniform(-16, 1, 300):
        number, unit = c.format_concentration(molar).split()
        assert c.to_molar(number, unit) == pytest.approx(molar, rel=5.1e-3)
        assert 1 <= float(number) < 1000 or molar < 1e-15


def test_text_of_steps_and_refusals():
    assert c.format_concentration(3.5, unit="step") == "step 3.5"
    with pytest.raises(ValueError, match="unit='nM': must be 'M' or 'step'"):
        c.format_concentration(3.5, unit="nM")
    for wrong in (-1e-9, np.inf):
        with pytest.raises(ValueError, match="negative or not finite"):
            c.format_concentration(wrong)
    assert c.fitting_unit([0, 3e-9, 1e-6]) == "nM"
    assert c.fitting_unit([0.0]) == "M"


def test_jax_is_not_imported():
    code = "import sys, coos.concentrations; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
