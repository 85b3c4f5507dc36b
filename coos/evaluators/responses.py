"""The probability of a phenotype against the concentration, and the potency that can be read from it.

Soft classification of Godinez et al. 2017, section 3.1: a network that was trained on the extremes looks at all wells;
medians over replicates are drawn and a sigmoid gives EC50. Wells at the extremes are those it was trained on, so that
their probabilities say less than those between.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl

from coos import concentrations
from coos.metrics import dose_response
from coos.workdir import Predictions

MOLAR, STEP, CONTROL = "Metadata_concentration_molar", "Metadata_dose_step", "Metadata_control"
TREATMENT = ("Metadata_compound", "Metadata_cell_line")
WELL = ("Metadata_Plate", "Metadata_Well")
VEHICLE, POSITIVE = "negative", "positive"  # controls


class Response(NamedTuple):
    """One treatment: its wells' concentrations (N,), mol/L or steps, 0 for vehicle; responses (N, K) of K classes."""

    name: str
    unit: str  # "M", or `concentrations.DIMENSIONLESS`
    concentrations: np.ndarray
    responses: np.ndarray


def of_wells(table: pl.DataFrame, found: Predictions) -> tuple[pl.DataFrame, np.ndarray]:
    """Wells with a known dose, or the vehicle, and the medians over their fields of all probabilities (W, K).

    `found` has a row for every row of the table, in its order. The wells have their treatment, `concentration` and
    `unit`: mol/L, or dose steps where no concentration is known at all. Positive controls are no doses and left out.

    Raises:
        ValueError: other rows, a well with two doses, or none with a dose.
    """
    if not np.array_equal(table["Metadata_id"].to_numpy().astype(np.str_), found.ids):
        raise ValueError("these predictions are not of the fields of the table, in their order")
    molar = table[MOLAR].is_not_null().any()
    dose = pl.col(MOLAR if molar else STEP).cast(pl.Float64)
    control = pl.col(CONTROL).fill_null("")
    known = table.with_row_index("row").with_columns(
        pl.when(control == VEHICLE).then(0.0).otherwise(dose).alias("concentration"),
        pl.lit("M" if molar else concentrations.DIMENSIONLESS).alias("unit"),
    )
    known = known.filter(pl.col("concentration").is_not_null() & (control != POSITIVE))
    if not (known["concentration"] > 0).any():
        raise ValueError("no field has a known concentration or dose step above 0: there is no curve to draw")
    keys = [*WELL, *TREATMENT, CONTROL, "concentration", "unit"]
    grouped = known.group_by(keys, maintain_order=True).agg("row")
    twice = grouped.filter(grouped.select(WELL).is_duplicated())
    if len(twice):
        raise ValueError(
            f"plate {twice[WELL[0]][0]}, well {twice[WELL[1]][0]}: its fields have different doses"
        )
    medians = [np.median(found.probabilities[rows], axis=0) for rows in grouped["row"].to_list()]
    return grouped.drop("row"), np.stack(medians).astype(np.float64)


def treatments(wells: pl.DataFrame, responses: np.ndarray) -> list[Response]:
    """The wells of every compound (and cell line, where there are several), with the vehicle wells of its plates."""
    control = wells[CONTROL].fill_null("").to_numpy()
    dosed = np.flatnonzero((wells["concentration"].to_numpy() > 0) & (control != VEHICLE))
    lines = wells["Metadata_cell_line"].drop_nulls().n_unique()
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row in dosed.tolist():
        groups.setdefault(tuple(wells[name][row] for name in TREATMENT), []).append(row)
    found = []
    for (compound, line), rows in groups.items():
        plates = set(wells["Metadata_Plate"][rows])
        same = [line is None or wells["Metadata_cell_line"][row] in (None, line) for row in range(len(wells))]
        vehicle = [
            row
            for row in np.flatnonzero(wells["concentration"].to_numpy() == 0).tolist()
            if wells["Metadata_Plate"][row] in plates and same[row]
        ]
        chosen = [*vehicle, *rows]
        name = f"{compound}, {line}" if lines > 1 and line else str(compound)
        unit = wells["unit"][rows[0]]
        found.append(Response(name, unit, wells["concentration"].to_numpy()[chosen], responses[chosen]))
    return found


def fit(found: list[Response], place: int, **options: Any) -> list[dose_response.Fit]:
    """The curves of class `place` of all treatments, fitted together; `options` are those of `dose_response.fit`.

    On the axis of log10 mol/L, or of the steps as they are. Vehicle wells pin the response without any effect.
    """
    longest = max(len(one.concentrations) for one in found)
    shape = (len(found), longest)
    x, y, mask = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
    for k, one in enumerate(found):
        number = len(one.concentrations)
        x[k, :number], y[k, :number], mask[k, :number] = position(one), one.responses[:, place], True
    fitted = dose_response.fit(x, y, mask, **options)
    return [jax.tree.map(lambda a, k=k: np.asarray(a)[k], fitted) for k in range(len(found))]


def position(one: Response) -> np.ndarray:
    """Where the wells stand on the axis of the fit: log10 mol/L or steps, -inf for the vehicle."""
    if one.unit == "M":
        with np.errstate(divide="ignore"):
            return np.log10(one.concentrations)
    return np.where(one.concentrations == 0, -np.inf, one.concentrations)


def describe(one: Response, fitted: dose_response.Fit) -> dict[str, Any]:
    """What a table says of a curve: verdict, EC50 with interval in the unit of the response, slope, quality."""

    def back(value: Any) -> float:
        return float(10.0 ** float(value)) if one.unit == "M" else float(value)

    return {
        "treatment": one.name,
        "verdict": dose_response.VERDICTS[int(fitted.verdict)],
        "unit": one.unit,
        "ec50": back(fitted.log10_ec50),
        "ec50_low": back(fitted.low),
        "ec50_high": back(fitted.high),
        "bottom": float(fitted.bottom),
        "top": float(fitted.top),
        "hill": float(fitted.hill),
        "r_squared": float(fitted.r_squared),
        "p_value": float(fitted.p_value),
        "wells": int(fitted.num_points),
    }
