"""The numbers of a covariate-shift report: from a `Comparison` to tables of plain dicts.

Shares are fractions here, percent only where they are printed. NaN means undefined; `note` says why.
"""

import functools
from typing import Any

import jax
import numpy as np
from jax import Array

from coos.metrics import covariate_shift
from coos.report.comparison import Comparison, Evaluated

Row = dict[str, Any]
Samples = dict[str, np.ndarray]


def confusions(comparison: Comparison) -> Samples:
    """Per set the confusion matrices (runs, K, K) of all runs."""
    num_classes = len(comparison.class_names)
    return {
        name: np.stack([_confusion(p.labels, p.probabilities, num_classes) for p in evaluated.predictions])
        for name, evaluated in comparison.evaluated.items()
    }


def _confusion(labels: np.ndarray, probabilities: np.ndarray, num_classes: int) -> np.ndarray:
    predicted = probabilities.argmax(-1)
    return np.asarray(covariate_shift.confusion_matrix(labels, predicted, num_classes=num_classes))


@functools.partial(jax.jit, static_argnames=("num_classes", "num_resamples"))
def _resampled_errors(
    key: Array, labels: Array, predicted: Array, *, num_classes: int, num_resamples: int
) -> Array:
    """Balanced error (num_resamples, runs) of every run on the same resampled cells."""

    def errors(labels: Array, predicted: Array, mask: Array) -> Array:
        count = functools.partial(
            covariate_shift.confusion_matrix, labels, num_classes=num_classes, mask=mask
        )
        return covariate_shift.balanced_error(jax.vmap(count, in_axes=1)(predicted))

    return covariate_shift.bootstrap(errors, key, labels, predicted, num_resamples=num_resamples)


def _set_samples(evaluated: Evaluated, key: Array, num_classes: int, num_resamples: int) -> np.ndarray:
    """Bootstrapped errors (num_resamples, runs); runs that saw other cells are resampled one by one."""
    predicted = [p.probabilities.argmax(-1) for p in evaluated.predictions]
    sizes = {"num_classes": num_classes, "num_resamples": num_resamples}
    if evaluated.shared:
        labels = evaluated.predictions[0].labels
        return np.asarray(_resampled_errors(key, labels, np.stack(predicted, axis=1), **sizes))
    keys = jax.random.split(key, len(predicted))
    columns = [
        _resampled_errors(keys[i], p.labels, predicted[i][:, None], **sizes)
        for i, p in enumerate(evaluated.predictions)
    ]
    return np.concatenate(columns, axis=1)


def error_samples(comparison: Comparison, *, num_resamples: int = 1000, seed: int = 0) -> Samples:
    """Per set the bootstrapped balanced errors (num_resamples, runs): cells are drawn once for all runs."""
    keys = jax.random.split(jax.random.key(seed), len(comparison.sets))
    num_classes = len(comparison.class_names)
    return {
        name: _set_samples(comparison.evaluated[name], keys[i], num_classes, num_resamples)
        for i, name in enumerate(comparison.sets)
    }


def average_drawn_seeds(samples: Samples, positions: list[int], seed: int) -> Samples:
    """Mean over seeds drawn with replacement; one draw serves all sets, so that gaps stay within a seed."""
    num_resamples = len(next(iter(samples.values())))
    shape = (num_resamples, len(positions))
    draws = np.random.default_rng(seed).integers(0, len(positions), shape)
    return {
        name: np.take_along_axis(values[:, positions], draws, axis=1).mean(axis=1)
        for name, values in samples.items()
    }


def bounds(samples: np.ndarray) -> tuple[float, float]:
    """Ends of the 95 % interval of bootstrapped values; NaN if all are undefined."""
    if np.isnan(samples).all():
        return float("nan"), float("nan")
    low, high = np.asarray(covariate_shift.interval(samples))
    return float(low), float(high)


def error_rows(
    comparison: Comparison, matrices: Samples, *, num_resamples: int = 1000, seed: int = 0
) -> list[Row]:
    """One row per configuration and set: balanced error, gap to the reference (with intervals) and more."""
    samples = error_samples(comparison, num_resamples=num_resamples, seed=seed)
    rows = []
    for name, positions in comparison.configurations.items():
        drawn = average_drawn_seeds(samples, positions, seed)
        for set_name in comparison.sets:
            row = {"configuration": name, "set": set_name, "seeds": len(positions)}
            row |= _point_scores(comparison, matrices, set_name, positions)
            row["balanced_error_low"], row["balanced_error_high"] = bounds(drawn[set_name])
            rows.append(row | _gap(comparison, matrices, drawn, set_name, positions))
    return rows


def errors_of(matrices: Samples, set_name: str, positions: list[int]) -> np.ndarray:
    """Balanced errors of some of the runs on a set."""
    return np.asarray(covariate_shift.balanced_error(matrices[set_name][positions]))


def _point_scores(
    comparison: Comparison, matrices: Samples, set_name: str, positions: list[int]
) -> dict[str, Any]:
    """Means over seeds of what one set's predictions say."""
    predictions = [comparison.evaluated[set_name].predictions[i] for i in positions]
    pairs = [(p.labels, p.probabilities) for p in predictions]
    errors = errors_of(matrices, set_name, positions)
    absent = matrices[set_name][positions].sum(-1).min(0) == 0
    without = [c for c, missing in zip(comparison.class_names, absent, strict=True) if missing]
    return {
        "n": len(predictions[0].ids),
        "balanced_error": float(errors.mean()),
        "accuracy": float(covariate_shift.accuracy(matrices[set_name][positions]).mean()),
        "cross_entropy": float(np.mean([covariate_shift.cross_entropy(*pair) for pair in pairs])),
        "expected_calibration_error": float(
            np.mean([covariate_shift.expected_calibration_error(*pair) for pair in pairs])
        ),
        "balanced_error_of_each_seed": [float(error) for error in errors],
        "note": f"no examples of {', '.join(without)}" if without else "",
    }


def _gap(
    comparison: Comparison, matrices: Samples, drawn: Samples, set_name: str, positions: list[int]
) -> dict[str, float]:
    """Loss against the reference set; NaN if that set was not evaluated."""
    reference = comparison.reference
    if reference not in comparison.sets:
        return dict.fromkeys(("gap", "gap_low", "gap_high"), float("nan"))
    errors = [errors_of(matrices, name, positions).mean() for name in (set_name, reference)]
    low, high = bounds(drawn[set_name] - drawn[reference])
    return {"gap": float(covariate_shift.gap(*errors)), "gap_low": low, "gap_high": high}


def published_rows(comparison: Comparison) -> list[Row]:
    """Published balanced errors and gaps of the evaluated sets, as fractions; NaN where none was printed."""
    rows = []
    for name, entry in comparison.published.items():
        errors = {key: value / 100 for key, value in entry["errors"].items()}
        reference = errors.get(comparison.reference, float("nan"))
        for set_name in comparison.sets:
            error = errors.get(set_name, float("nan"))
            rows.append(
                {
                    "configuration": name,
                    "source": entry["source"],
                    "set": set_name,
                    "balanced_error": error,
                    "gap": error - reference,
                    "comparable": not comparison.simulated,
                }
            )
    return rows


def mean_confusion(matrices: Samples, set_name: str, positions: list[int]) -> np.ndarray:
    """Counts (K, K) averaged over seeds."""
    return matrices[set_name][positions].mean(axis=0)


def class_rows(comparison: Comparison, matrices: Samples) -> list[Row]:
    """Sensitivity and precision per configuration, set and class, from counts averaged over seeds."""
    rows = []
    for name, positions in comparison.configurations.items():
        for set_name in comparison.sets:
            matrix = mean_confusion(matrices, set_name, positions)
            found = np.asarray(covariate_shift.sensitivity(matrix))
            right = np.asarray(covariate_shift.precision(matrix))
            for k, label in enumerate(comparison.class_names):
                notes = ["no examples of this class"] if np.isnan(found[k]) else []
                notes += ["this class was never predicted"] if np.isnan(right[k]) else []
                rows.append(
                    {
                        "configuration": name,
                        "set": set_name,
                        "class": label,
                        "n": float(matrix[k].sum()),
                        "sensitivity": float(found[k]),
                        "precision": float(right[k]),
                        "note": "; ".join(notes),
                    }
                )
    return rows


def growth(comparison: Comparison, matrices: Samples, set_name: str, positions: list[int]) -> np.ndarray:
    """What share (K, K) of each true class moved to which prediction between the reference and a set."""
    after = mean_confusion(matrices, set_name, positions)
    before = mean_confusion(matrices, comparison.reference, positions)
    return np.asarray(covariate_shift.confusion_growth(after, before))


def growth_rows(comparison: Comparison, matrices: Samples) -> list[Row]:
    """Every confusion that grew from the reference to a set, the largest first."""
    rows = []
    for name, positions in comparison.configurations.items():
        for set_name in comparison.shifted:
            before = covariate_shift.confusion_rates(
                mean_confusion(matrices, comparison.reference, positions)
            )
            grown = growth(comparison, matrices, set_name, positions)
            for t, p in zip(*np.nonzero(grown > 0), strict=True):
                if t != p:
                    rows.append(
                        {
                            "configuration": name,
                            "set": set_name,
                            "true": comparison.class_names[t],
                            "predicted": comparison.class_names[p],
                            "reference_share": float(before[t, p]),
                            "share": float(before[t, p] + grown[t, p]),
                            "growth": float(grown[t, p]),
                        }
                    )
    return sorted(rows, key=lambda row: -row["growth"])
