"""Simulated assays: which compounds are active in them follows from one latent effect, or from nothing at all.

Each of a compound's effects (`coos.data.simulate.fields.EFFECTS`) is drawn by itself, mostly near 0 or near 1.
An assay has a driver: one of the effects, or noise. Among the compounds that it measured, a share is active: the
ones with the strongest effect, up to a little noise. Two assays follow each effect on morphology, one in
which the strong compounds are active and one in which the weak are; four follow toxicity; eight follow nothing.
Half of the assays of each kind are recorded as IC50 or EC50, the others as activity comments.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from coos.data import label_matrix
from coos.data.simulate.fields import EFFECTS, MORPHOLOGY

NOISE = "noise"
LABELLED = 0.55  # of the compounds, in each assay
ACTIVE_SHARES = (0.35, 0.4, 0.45, 0.5)  # of the labelled compounds
LABEL_NOISE = 0.08  # sd of what is added to an effect between 0 and 1
MIN_PER_CLASS = 10  # assays with fewer active or inactive compounds are left out of a label matrix
THRESHOLDS = (5.5, 6.5, 7.5)  # of pChEMBL, as the study takes them
FIRST_ID = 900001

Array = np.ndarray


class Assay(NamedTuple):
    """One assay: its `driver` is an effect or NOISE; `active_when` that effect is "high" or "low" (or "").

    `measured` (n,) int64 are positions of compounds, ascending; `active` (n,) bool; `values` (n,) float64 their
    pChEMBL values, or None where the assay is recorded as comments. All values lie within 0.9 of `threshold`, so that
    the two other thresholds leave a single class.
    """

    assay_id: int
    driver: str
    active_when: str
    recorded_as: str
    threshold: float | None
    measured: Array
    active: Array
    values: Array | None


def draw_effects(count: int, *, seed: int) -> Array:
    """Effects of `count` compounds, float64 (count, 7) between 0 and 1, independent of each other."""
    return np.random.default_rng([seed, 10]).beta(0.5, 0.5, (count, len(EFFECTS)))


def plan() -> list[tuple[str, str, str]]:
    """(driver, active_when, recorded_as) of the 24 assays."""
    strong = [(driver, "high", "dose") for driver in MORPHOLOGY]
    weak = [(driver, "low", "comment") for driver in MORPHOLOGY]
    toxic = [("toxicity", "high", kind) for kind in ("dose", "comment") * 2]
    noise = [(NOISE, "", kind) for kind in ("dose", "comment") * 4]
    return [*strong, *weak, *toxic, *noise]


def draw_assays(effects: Array, *, seed: int) -> list[Assay]:
    """The assays of compounds with these effects (compounds, 7).

    Raises:
        ValueError: there are so few compounds that an assay has fewer than ten active or inactive ones.
    """
    measured = round(LABELLED * len(effects))
    if round(min(ACTIVE_SHARES) * measured) < MIN_PER_CLASS:
        least = int(np.ceil((MIN_PER_CLASS / min(ACTIVE_SHARES)) / LABELLED)) + 1
        raise ValueError(
            f"{len(effects)} compounds leave assays with fewer than {MIN_PER_CLASS} active compounds; "
            f"take {least} or more"
        )
    return [
        _draw_assay(np.random.default_rng([seed, 11, number]), number, effects, *kind)
        for number, kind in enumerate(plan())
    ]


def _draw_assay(
    rng: np.random.Generator, number: int, effects: Array, driver: str, active_when: str, kind: str
) -> Assay:
    measured = np.sort(rng.permutation(len(effects))[: round(LABELLED * len(effects))])
    if driver == NOISE:
        scores = rng.random(len(measured))
    else:
        sign = 1 if active_when == "high" else -1
        scores = sign * effects[measured, EFFECTS.index(driver)] + LABEL_NOISE * rng.standard_normal(
            len(measured)
        )
    actives = round(ACTIVE_SHARES[number % len(ACTIVE_SHARES)] * len(measured))
    active = np.argsort(np.argsort(-scores)) < actives
    recorded, threshold, values = "comment", None, None
    if kind == "dose":
        recorded, threshold = ("IC50", "EC50")[number % 2], THRESHOLDS[number % len(THRESHOLDS)]
        values = np.round(threshold + np.where(active, 1, -1) * rng.uniform(0.05, 0.9, len(measured)), 2)
    return Assay(FIRST_ID + number, driver, active_when, recorded, threshold, measured, active, values)


def describe(assay: Assay) -> dict[str, Any]:
    """What drives an assay, how it is recorded, and its counts, as JSON can hold them."""
    return {
        "assay_id": str(assay.assay_id),
        "driver": assay.driver,
        "active_when": assay.active_when,
        "recorded_as": assay.recorded_as,
        "threshold": assay.threshold,
        "active": int(assay.active.sum()),
        "inactive": int((~assay.active).sum()),
    }


def measurements(assays: Iterable[Assay]) -> Iterator[dict[str, Any]]:
    """Measurements as `coos.data.simulate.chembl.write_chembl` takes them."""
    for assay in assays:
        for row, compound in enumerate(assay.measured.tolist()):
            place = {"compound": compound, "assay": assay.assay_id}
            if assay.values is not None:
                value = float(assay.values[row])
                yield {**place, "standard_type": assay.recorded_as, "pchembl_value": value}
            else:
                comment = "active" if assay.active[row] else "inactive"
                yield {**place, "standard_type": "Potency", "activity_comment": comment}


def labels(assays: Iterable[Assay], keys: list[str]) -> label_matrix.LabelMatrix:
    """The matrix that these measurements make: assays with values by threshold, then those with comments."""
    columns = sorted(assays, key=lambda assay: (assay.threshold or np.inf, assay.assay_id))
    return label_matrix.from_entries(
        np.concatenate([assay.measured for assay in columns]),
        np.repeat(np.arange(len(columns)), [len(assay.measured) for assay in columns]),
        np.concatenate([np.where(assay.active, 1, -1) for assay in columns]),
        compounds=keys,
        assays=[str(assay.assay_id) for assay in columns],
    )
