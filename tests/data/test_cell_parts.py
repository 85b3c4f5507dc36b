"""Which wells train and which validate: the three splits of the thesis, subsets, doses, held-out plates."""

import collections
import itertools

import numpy as np
import polars as pl
import pytest

from coos.data import cell_parts
from coos.data.cell_parts import Rules, parts

PLATES = {"P1": 1, "P2": 3, "P3": 3, "P4": 3, "P5": 3}  # name: batch; four of five replicates in batch 3
COMPOUNDS = {"A01": ("DMSO", None), "A02": ("one", "kinase"), "A03": ("two", "kinase"), "B01": ("three", "opsin"),
             "B02": ("four", None), "B03": ("five", "kinase"), "B04": ("six", "opsin")}  # fmt: skip
SITES, CELLS = ("1", "2", "3"), 4


@pytest.fixture
def places():
    rows = [
        {
            "Metadata_Plate": plate,
            "Metadata_Well": well,
            "Metadata_Site": site,
            "Metadata_Plate_Map_Name": "M",
            "Metadata_Batch_Number": batch,
            "Metadata_broad_sample": compound,
            "Metadata_moa": mechanism,
            "Metadata_dose_level": 6 if well < "B03" else 5,
        }
        for (plate, batch), (well, (compound, mechanism)), site in itertools.product(
            PLATES.items(), COMPOUNDS.items(), SITES
        )
    ]
    return pl.DataFrame(rows)


@pytest.fixture
def place(places):
    return np.repeat(np.arange(len(places), dtype=np.int32), CELLS)


def rules(**changes):
    return Rules(**{"target": "Metadata_broad_sample", **changes})


def wells_of(places, place, rows):
    """{compound: {(plate, well)}} of the cells in `rows`."""
    found = collections.defaultdict(set)
    for row in np.unique(place[rows]).tolist():
        found[places["Metadata_broad_sample"][row]].add(
            (places["Metadata_Plate"][row], places["Metadata_Well"][row])
        )
    return found


def test_labels_are_those_of_the_wells_and_cells_of_no_class_have_none(places, place):
    found = parts(places, place, rules(where="Metadata_dose_level = 6 AND Metadata_broad_sample <> 'DMSO'"))
    assert found.class_names == ("four", "one", "three", "two")
    for cell in range(0, len(place), 7):
        compound = places["Metadata_broad_sample"][int(place[cell])]
        label = found.labels[cell]
        assert label == -1 if compound in ("DMSO", "five", "six") else found.class_names[label] == compound


def test_split_three_draws_cells_and_loses_none(places, place):
    found = parts(places, place, rules(validation_fraction=0.25, seed=1))
    training, validation = found.cells["training"], found.cells["validation"]
    assert sorted([*training, *validation]) == list(range(len(place)))
    assert len(validation) == round(0.25 * len(place))
    assert not len(found.cells["held_out"])
    theirs = wells_of(places, place, training)
    assert all(wells <= theirs[compound] for compound, wells in wells_of(places, place, validation).items())
    again = parts(places, place, rules(validation_fraction=0.25, seed=1))
    other = parts(places, place, rules(validation_fraction=0.25, seed=2))
    np.testing.assert_array_equal(again.cells["validation"], validation)
    assert not np.array_equal(other.cells["validation"], validation)


def test_split_one_draws_wells_of_every_class(places, place):
    found = parts(places, place, rules(split="wells", training_wells=3, validation_wells=1))
    training, validation = (wells_of(places, place, found.cells[part]) for part in ("training", "validation"))
    for compound in training:
        assert len(training[compound]) == 3
        assert len(validation[compound]) == 1
        assert not training[compound] & validation[compound]
    assert len(found.cells["training"]) == 7 * 3 * len(SITES) * CELLS
    drawn = {
        tuple(
            sorted(
                wells_of(
                    places, place, parts(places, place, rules(split="wells", seed=s)).cells["validation"]
                )["one"]
            )
        )
        for s in range(12)
    }
    assert len(drawn) > 2


def test_split_two_trains_on_both_batches_and_validates_on_the_larger(places, place):
    found = parts(places, place, rules(split="replicates"))
    plates = {part: {well[0] for wells in wells_of(places, place, rows).values() for well in wells}
              for part, rows in found.cells.items()}  # fmt: skip
    assert plates["validation"] == {"P2"}
    assert plates["training"] == {"P4", "P5", "P1"}  # replicates 3, 4 of batch 3 and 5, which is batch 1
    assert cell_parts.replicates(places)[::21].tolist() == [5, 1, 2, 3, 4]


def test_validation_on_some_sites_only(places, place):
    found = parts(places, place, rules(split="replicates", validation_sites=2))
    sites = collections.Counter(
        (places["Metadata_Plate"][row], places["Metadata_Well"][row])
        for row in np.unique(place[found.cells["validation"]]).tolist()
    )
    assert set(sites.values()) == {2}
    assert len(sites) == len(COMPOUNDS)


def test_held_out_plate_is_nowhere_else(places, place):
    found = parts(places, place, rules(held_out="Metadata_Plate = 'P3'"))
    plate = np.array(places["Metadata_Plate"].to_list())[place]
    assert set(plate[found.cells["held_out"]]) == {"P3"}
    assert len(found.cells["held_out"]) == (plate == "P3").sum()
    assert "P3" not in set(plate[found.cells["training"]]) | set(plate[found.cells["validation"]])


def test_another_dose_is_judged_for_known_classes_alone(places, place, caplog):
    renamed = pl.when(pl.col("Metadata_Well") == "B03").then(pl.lit("one")).otherwise("Metadata_broad_sample")
    places = places.with_columns(renamed.alias("Metadata_broad_sample"))
    found = parts(places, place, rules(where="Metadata_dose_level = 6", held_out="Metadata_dose_level = 5"))
    assert set(wells_of(places, place, found.cells["held_out"])) == {"one"}
    assert (found.labels[found.cells["held_out"]] == found.class_names.index("one")).all()
    assert "not trained on and so not judged: six" in caplog.text


def test_shared_mechanisms(places, place):
    kept = parts(places, place, rules(shared="Metadata_moa")).class_names
    assert kept == ("five", "one", "six", "three", "two")
    # at level 6 alone, "three" has no partner any more
    assert parts(
        places, place, rules(shared="Metadata_moa", where="Metadata_dose_level = 6")
    ).class_names == ("one", "two")


def test_top_mechanisms(places, place):
    assert parts(places, place, rules(classes="top:1")).class_names == ("five", "one", "two")
    assert parts(places, place, rules(classes="top:9")).class_names == ("five", "one", "six", "three", "two")


def test_random_classes_and_listed_ones(places, place, tmp_path):
    drawn = {parts(places, place, rules(classes="random:3", seed=seed)).class_names for seed in range(8)}
    assert all(len(names) == 3 for names in drawn)
    assert len(drawn) > 3
    listed = tmp_path / "strong.txt"
    listed.write_text("two\n\nsix\n")
    assert parts(places, place, rules(classes=str(listed))).class_names == ("six", "two")
    listed.write_text("two\nseven\n")
    with pytest.raises(ValueError, match="1 of 2 classes have no well here: seven"):
        parts(places, place, rules(classes=str(listed)))


def test_training_cells_are_limited_at_random(places, place):
    found = parts(places, place, rules(training_cells=50))
    assert len(found.cells["training"]) == 50
    assert len(np.unique(place[found.cells["training"]])) > 25
    assert len(found.cells["validation"]) == round(0.1 * len(place))


def test_target_may_be_the_mechanism_or_the_well(places, place):
    assert parts(places, place, rules(target="Metadata_moa")).class_names == ("kinase", "opsin")
    assert parts(places, place, rules(target="Metadata_Well")).class_names == tuple(sorted(COMPOUNDS))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"target": "Metadata_gene"},
            "Metadata_gene missing among what is known of the wells; found .*Metadata_Plate",
        ),
        ({"where": "Metadata_dose_level = 7"}, "data.where='Metadata_dose_level = 7': no well matches"),
        ({"held_out": "Metadata_Plate = 'P9'"}, "data.held_out=.*no well matches"),
        (
            {"where": "Metadata_Plate = 'P1'", "held_out": "Metadata_Plate = 'P1'"},
            "no well is left by data.where",
        ),
        ({"split": "four"}, "data.split='four': choose one of"),
        ({"classes": "best"}, "data.classes='best': neither 'top:N'"),
        ({"classes": "random:99"}, "there are 7 classes"),
        ({"split": "replicates", "training_replicates": (8,)}, "part 'training' has no cells"),
        ({"split": "replicates", "training_replicates": (1,)}, "share a replicate"),
        ({"validation_fraction": 1.0}, "must lie between 0 and 1"),
        ({"training_wells": 0}, "at least 1 each"),
    ],
)
def test_what_cannot_be_is_said(places, place, changes, message):
    with pytest.raises(ValueError, match=message):
        parts(places, place, rules(**changes))


@pytest.mark.parametrize("column", ["Metadata_Batch_Number", "Metadata_Plate_Map_Name"])
def test_replicates_need_batch_and_plate_map_of_every_plate(places, place, column):
    odd = pl.col("Metadata_Plate").is_in(["P4", "P2"])
    places = places.with_columns(pl.when(odd).then(None).otherwise(column).alias(column))
    with pytest.raises(ValueError, match=r"Map_Name or .* is unknown for 2 plates: P2, P4; .*complete the"):
        parts(places, place, rules(split="replicates"))
    assert len(parts(places, place, rules(split="wells")).cells["training"])
