"""Checkpoints by themselves: what is kept, what gives way, and what is never taken for damage."""

import numpy as np
import pytest

from coos.train.checkpoint import Checkpoints, checksum, layout


def tree(value, shape=(2, 2)):
    return {"params": {"kernel": np.full(shape, value, np.float32)}, "step": np.array(3)}


def test_newest_is_restored_and_the_oldest_give_way(tmp_path):
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        assert checkpoints.restore(tree(0.0)) is None
        for step in (5, 10, 15):
            checkpoints.save(step, tree(step), {"note": step})
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        assert checkpoints.steps() == [10, 15]
        found = checkpoints.restore(tree(0.0))
    np.testing.assert_array_equal(found.tree["params"]["kernel"], np.full((2, 2), 15))
    assert found.record["note"] == 15


def test_saving_an_earlier_step_replaces_later_ones(tmp_path):
    with Checkpoints(tmp_path / "best", keep=1) as checkpoints:
        checkpoints.save(50, tree(50.0), {})
    with Checkpoints(tmp_path / "best", keep=1) as checkpoints:
        checkpoints.save(10, tree(10.0), {})
    with Checkpoints(tmp_path / "best", keep=1) as checkpoints:
        assert checkpoints.steps() == [10]
        np.testing.assert_array_equal(
            checkpoints.restore(tree(0.0)).tree["params"]["kernel"], np.full((2, 2), 10)
        )


@pytest.mark.parametrize("like", [tree(0.0, (4,)), {"params": {"other": np.zeros((2, 2), np.float32)}}])
def test_other_arrays_are_an_error_and_stay_where_they_are(like, tmp_path):
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        checkpoints.save(5, tree(5.0), {})
    with Checkpoints(tmp_path / "checkpoints", keep=1) as checkpoints:
        with pytest.raises(ValueError, match="checkpoints/5: holds other parameters than this network"):
            checkpoints.restore(like)
        assert checkpoints.steps() == [5]


def test_checksum_and_layout_see_values_places_and_shapes():
    assert checksum(tree(1.0)) == checksum(tree(1.0))
    assert checksum(tree(1.0)) != checksum(tree(np.nextafter(np.float32(1), np.float32(2))))
    assert layout(tree(1.0)) == layout(tree(2.0))
    assert layout(tree(1.0)) != layout(tree(1.0, (4,)))
