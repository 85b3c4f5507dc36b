"""Groups of cells, and partners within them."""

import collections

import numpy as np
import pytest

from coos.data import collected_columns, groups, pipeline
from coos.data import source as sources
from coos.data.source import Source


def cells(ids, labels=None, **columns):
    labels = np.zeros(len(ids), np.int32) if labels is None else np.array(labels)
    columns = {name: np.array(values) for name, values in columns.items()}
    dataset = {"class_names": ["er", "golgi"], "directory": "somewhere"}
    return Source(np.zeros((len(ids), 4, 4, 2)), labels, np.array(ids), np.arange(len(ids)), dataset, columns)


def test_groups_by_class_column_and_id():
    source = cells(["A_1_7", "A_2_8", "B_1_9", "B_1_3"], [0, 0, 1, 1], plate=["p2", "p1", "p2", "p2"])
    assert groups.groups(source, "class").tolist() == [0, 0, 1, 1]
    assert groups.groups(source, "plate").tolist() == [1, 0, 1, 1]
    assert groups.groups(source, r"id:^(.*)_\d+$").tolist() == [0, 1, 2, 2]
    assert groups.groups(source, r"id:^[AB]").tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("by", "message"),
    [
        (
            "well",
            r"groups by 'well': not known of the cells of somewhere; there is 'class', 'plate', or 'id:",
        ),
        (r"id:^A_(\d)", r"2 ids do not match, such as 'B_1_9'"),
        (r"id:^._(2)?", r"cell 'A_1_7' has none \(3 cells\)"),
        ("id:(", "no regular expression"),
        ("plate", r"cell 'A_2_8' has none \(1 cells\)"),
    ],
)
def test_groups_that_cannot_be_are_refused(by, message):
    source = cells(["A_1_7", "A_2_8", "B_1_9", "B_1_3"], plate=["p2", "", "p2", "p2"])
    with pytest.raises(ValueError, match=message):
        groups.groups(source, by)


def test_cells_of_a_release_know_their_plate_and_well(dataset):
    source = sources.load(dataset, "training")
    plates, wells = source.columns["plate"], source.columns["well"]
    assert all(well.startswith(f"{plate}-") for plate, well in zip(plates, wells, strict=True))
    assert 1 < groups.groups(source, "plate").max() < groups.groups(source, "well").max()


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        (
            [("p", "A1"), ("p", ""), ("", "A1"), ("", "")],
            {"plate": ["p", "p", "", ""], "well": ["p-A1", "", "", ""]},
        ),
        ([("", "A1"), ("", "B2")], {"well": ["A1", "B2"]}),
        ([("", ""), ("", "")], {}),
        ([(None, None)], {}),
    ],
)
def test_what_is_not_known_of_a_cell_is_empty_and_of_all_cells_left_out(places, expected):
    columns = collected_columns.TargetColumns(len(places), {})
    for row, (plate, well) in enumerate(places):
        texts = {} if plate is None else {"plate": plate.encode(), "well": well.encode()}
        columns.take(row, {"id": f"cell{row}".encode(), "label": row, **texts})
    found = columns.arrays()
    assert found.pop("labels").tolist() == list(range(len(places)))
    assert found.pop("ids").tolist() == [f"cell{row}" for row in range(len(places))]
    assert {name: values.tolist() for name, values in found.items()} == expected


def batches(number, group, *, batch_size=6, seed=3, count=40):
    iterator = pipeline.index_iterator(number, batch_size=batch_size, seed=seed, partners=group)
    return np.stack([next(iterator) for _ in range(count)])


def test_every_cell_is_a_source_once_an_epoch_and_its_target_another_of_its_group():
    group = np.array([0, 1, 0, 1, 1, 2, 2, 0, 1, 2, 2, 1])
    found = batches(12, group, count=2)
    assert sorted(found[..., 0].ravel()) == list(range(12))
    many = batches(12, group, count=200).reshape(-1, 2)
    assert (group[many[:, 0]] == group[many[:, 1]]).all()
    assert (many[:, 0] != many[:, 1]).all()


def test_every_other_cell_of_the_group_is_as_likely_a_target():
    group = np.array([5, 5, 5, 5, 9, 9])
    many = batches(6, group, count=3000).reshape(-1, 2)
    counts = collections.Counter(map(tuple, many.tolist()))
    assert set(counts) == {(a, b) for a in range(6) for b in range(6) if a != b and group[a] == group[b]}
    four = [n for (a, _), n in counts.items() if a < 4]
    assert max(abs(n - 1000) for n in four) < 5 * np.sqrt(1000 * 2 / 3)
    assert counts[4, 5] == counts[5, 4] == 3000


def test_an_iterator_that_goes_on_draws_the_same_pairs():
    group = np.arange(30) % 3
    whole = batches(30, group, count=9)
    iterator = pipeline.index_iterator(30, batch_size=6, seed=3, partners=group)
    for _ in range(4):
        next(iterator)
    state = iterator.get_state()
    resumed = pipeline.index_iterator(30, batch_size=6, seed=3, partners=group)
    resumed.set_state(state)
    assert np.array_equal(np.stack([next(resumed) for _ in range(5)]), whole[4:])


def test_pairs_do_not_depend_on_the_number_of_processes(monkeypatch):
    group = np.arange(30) % 3
    whole = batches(30, group, count=5)
    parts = []
    for process in (0, 1):
        monkeypatch.setattr("jax.process_count", lambda: 2)
        monkeypatch.setattr("jax.process_index", lambda process=process: process)
        parts.append(batches(30, group, count=5))
    assert np.array_equal(np.stack(parts, axis=2).reshape(5, 6, 2), whole)


def test_a_cell_without_a_partner_is_refused():
    with pytest.raises(ValueError, match="example 2 is alone in its group"):
        pipeline.partner_drawer(np.array([0, 0, 1]))
