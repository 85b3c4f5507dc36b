"""Assays: what the cell count predicts, and on what the scores are taken."""

import types

import numpy as np
import pytest
from sklearn import metrics as sk

from coos.data.source import Source
from coos.evaluators import multitask
from coos.train.multitask import validation_scores
from coos.workdir import Predictions


def wells(labels, counts):
    names = np.array([f"w{i}" for i in range(len(labels))])
    columns = {"well": names, "compound": names, "cell_count": np.array(counts)}
    rows = np.arange(len(labels))
    return Source(np.zeros((len(labels), 1), np.float32), np.array(labels, np.int8), names, rows, {}, columns)


def test_the_baseline_is_fitted_to_training_wells_alone():
    # Few cells are active in training and inactive where it is judged; then one class only, and no label at all.
    training = wells([[1, 1, 0], [1, 1, 0], [-1, 0, 0], [-1, 0, 0]], [10, 12, 90, 99])
    judged = wells([[-1, -1, 1], [1, 1, -1]], [11, 95])
    found = multitask.baseline(lambda: training, judged).probabilities
    assert found[0, 0] > 0.5 > found[1, 0]
    np.testing.assert_array_equal(found[:, 1:], [[1, 0.5], [1, 0.5]])
    assert multitask.baseline(lambda: wells([[1, 1, 0]], [-1]), judged) is None


def test_scores_are_of_the_level_and_validation_is_of_wells():
    columns = {
        "well": np.array(list("aabc")),
        "compound": np.array(list("XXXY")),
        "cell_count": np.full(4, -1),
    }
    labels = np.array([[1], [1], [1], [-1]], np.int8)
    found = Predictions(columns["well"], labels, np.float32([[0.9], [0.3], [0.1], [0.2]]), columns)
    for level, n, auroc in (("none", 4, 2 / 3), ("well", 3, 0.5), ("compound", 2, 1)):
        config = types.SimpleNamespace(evaluation=types.SimpleNamespace(level=level))
        values = multitask.score_set(found, config=config, dataset={"tasks": ["t"]})
        assert (values["n"], values["auroc/t"]) == (n, pytest.approx(auroc))
    expected = sk.log_loss([1, 1, 0], [0.6, 0.1, 0.2])
    validated = validation_scores(found)
    assert (validated["n"], validated["cross_entropy"]) == (3, pytest.approx(expected, rel=1e-6))
