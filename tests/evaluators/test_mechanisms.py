"""Calls of mechanisms: medians and neighbours against slow loops, ties, the undefined, and choices without labels."""

import json

import numpy as np
import polars as pl
import pytest
import scipy.stats

from coos import workdir
from coos.evaluators import held_out, mechanism_choice, mechanism_fields, mechanisms
from coos.metrics import retrieval
from coos.profiles.table import Table

NAMES = ("actin", "kinase", "tubulin")
COMPOUND, WEEK = "Metadata_compound", "Metadata_week"
TREATED = (COMPOUND, "Metadata_concentration")


def make_fields(count=200, seed=0):
    """Random fields of 6 compounds at 2 doses on 3 plates, each compound with one label."""
    generator = np.random.default_rng(seed)
    compound = generator.integers(6, size=count)
    columns = {
        "compound": np.array([f"c{i}" for i in compound]),
        "concentration": generator.choice(["0.1", "10"], count),
        "plate": generator.choice(["p1", "p2", "p3"], count),
        "well": generator.choice(["A01", "B02"], count),
    }
    probabilities = generator.dirichlet([1, 1, 1], count).astype(np.float32)
    ids = np.array([f"field{i}" for i in range(count)])
    return workdir.Predictions(ids, (compound % 3).astype(np.int32), probabilities, columns)


def call(predictions, **options):
    metadata = mechanism_fields.field_metadata(predictions)
    return mechanism_fields.treatment_probabilities(predictions, metadata, mechanisms=NAMES, **options)


def shuffled(predictions, seed=1):
    order = np.random.default_rng(seed).permutation(len(predictions.ids))
    columns = {name: column[order] for name, column in predictions.columns.items()}
    return workdir.Predictions(*(array[order] for array in predictions[:3]), columns)


@pytest.mark.parametrize("replicate", [("plate", "well"), ("plate",)])
def test_medians_of_fields_then_of_replicates(replicate):
    predictions = make_fields()
    found = call(predictions, replicate=replicate)
    columns = predictions.columns
    keys = sorted({(c, float(d)) for c, d in zip(columns["compound"], columns["concentration"], strict=True)})
    assert found.table.select("compound", "concentration").rows() == keys
    for row, (compound, dose) in zip(found.table.iter_rows(named=True), keys, strict=True):
        chosen = (columns["compound"] == compound) & (columns["concentration"].astype(float) == dose)
        groups = {tuple(columns[name][i] for name in replicate) for i in np.flatnonzero(chosen)}
        medians = []
        for group in groups:
            same = np.all([columns[n] == g for n, g in zip(replicate, group, strict=True)], axis=0)
            medians.append(np.median(predictions.probabilities[chosen & same].astype(float), axis=0))
        expected = np.median(medians, axis=0)
        np.testing.assert_allclose([row[f"probability: {name}"] for name in NAMES], expected)
        truth = NAMES[int(compound[1]) % 3]
        assert (row["fields"], row["replicates"], row["mechanism"]) == (chosen.sum(), len(groups), truth)
        assert row["predicted"] == NAMES[expected.argmax()]
        assert row["score"] == (row["predicted"] == truth)
        assert row["rank"] == (expected >= expected[NAMES.index(truth)]).sum()
    again = call(shuffled(predictions), replicate=replicate)
    assert again.table.equals(found.table)
    np.testing.assert_array_equal(again.calls, found.calls)


def test_two_largest_medians_share_the_call():
    columns = {name: np.array([name]) for name in ("compound", "plate", "well")}
    for label, score in ((0, 0.5), (1, 0.5), (2, 0.0)):
        probabilities = np.array([[0.4, 0.4, 0.2]], np.float32)
        predictions = workdir.Predictions(
            np.array(["f"]), np.array([label]), probabilities, columns | {"concentration": np.array([1.0])}
        )
        found = call(predictions)
        assert found.table["predicted"].to_list() == ["actin | kinase"]
        assert found.scores.tolist() == [score]
        assert mechanisms.accuracy(found).tied == 1
        assert mechanisms.confusion(found)[label].tolist() == [0.5, 0.5, 0.0]
        assert found.table["rank"][0] == (3 if label == 2 else 2)


def test_fields_that_cannot_be_called_are_refused():
    good = make_fields()
    broken = good.probabilities.copy()
    broken[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"1 fields have probabilities that are not finite.*field3"):
        call(good._replace(probabilities=broken))
    with pytest.raises(ValueError, match="labels outside 0 to 2"):
        call(good._replace(labels=good.labels + 1))
    mixed = good.labels.copy()
    mixed[0] = (mixed[0] + 1) % 3
    with pytest.raises(ValueError, match=r"compound=c\d, concentration=.*a treatment has one mechanism"):
        call(good._replace(labels=mixed))
    with pytest.raises(ValueError, match="do not fit"):
        call(good._replace(probabilities=good.probabilities[:, :2]))
    with pytest.raises(ValueError, match="no column donor"):
        call(good, replicate=("donor",))
    with pytest.raises(ValueError, match="concentration has values that are not numbers"):
        call(good._replace(columns={**good.columns, "concentration": np.full(200, "high")}))
    metadata = mechanism_fields.field_metadata(good).with_columns(
        plate=pl.Series([None, *good.columns["plate"][1:]], dtype=pl.String)
    )
    with pytest.raises(ValueError, match=r"plate is unknown \(null\) in 1 rows, first row 0"):
        mechanism_fields.treatment_probabilities(good, metadata, mechanisms=NAMES)


def test_metadata_are_found_by_id_in_any_order():
    predictions = make_fields()
    own = mechanism_fields.field_metadata(predictions)
    known = own.with_columns(id=pl.Series(predictions.ids)).sample(fraction=1, shuffle=True, seed=3)
    found = mechanism_fields.field_metadata(predictions, known)
    assert found["id"].to_list() == predictions.ids.tolist()
    assert found.select(own.columns).equals(own)
    with pytest.raises(ValueError, match="1 predicted fields are not in the metadata: field7"):
        mechanism_fields.field_metadata(predictions, known.filter(pl.col("id") != "field7"))
    with pytest.raises(ValueError, match="1 fields stand in the metadata twice: field7"):
        mechanism_fields.field_metadata(
            predictions, pl.concat([known, known.filter(pl.col("id") == "field7")])
        )
    with pytest.raises(ValueError, match="no column 'id'"):
        mechanism_fields.field_metadata(predictions, own)


def rows_of(predictions, chosen):
    columns = {name: column[chosen] for name, column in predictions.columns.items()}
    return workdir.Predictions(*(array[chosen] for array in predictions[:3]), columns)


def save_folds(folder, predictions, *, nested=False, classes=NAMES):
    for compound in np.unique(predictions.columns["compound"]):
        part = rows_of(predictions, predictions.columns["compound"] == compound)
        if nested:
            workdir.save_predictions(folder / compound, "held_out", part)
            workdir.write_json(folder / compound / "config.json", {"dataset": {"class_names": classes}})
        else:
            workdir.save_predictions(folder, compound, part, folder=".")


@pytest.mark.parametrize("nested", [False, True])
def test_folds_together_call_what_the_whole_calls(tmp_path, nested):
    predictions = make_fields()
    save_folds(tmp_path, predictions, nested=nested)
    found, names = mechanism_fields.read_folds(tmp_path)
    assert names == (NAMES if nested else None)
    assert (found.columns["fold"] == found.columns["compound"]).all()
    assert call(found).table.equals(call(predictions).table)


def test_folds_that_do_not_go_together_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no predictions of folds"):
        mechanism_fields.read_folds(tmp_path)
    predictions = make_fields()
    save_folds(tmp_path / "twice", predictions)
    workdir.save_predictions(tmp_path / "twice", "c9", rows_of(predictions, slice(0, 1)), folder=".")
    with pytest.raises(ValueError, match=r"field field0 is predicted twice, in the folds c\d and c9"):
        mechanism_fields.read_folds(tmp_path / "twice")
    save_folds(tmp_path / "classes", predictions, nested=True)
    (tmp_path / "classes" / "c1" / "config.json").write_text(json.dumps({"dataset": {"class_names": ["b"]}}))
    with pytest.raises(ValueError, match="trained with other classes"):
        mechanism_fields.read_folds(tmp_path / "classes")
    narrow = predictions._replace(
        ids=np.char.add(predictions.ids, "x"), probabilities=predictions.probabilities[:, :2]
    )
    save_folds(tmp_path / "widths", predictions)
    workdir.save_predictions(tmp_path / "widths", "c9", narrow, folder=".")
    with pytest.raises(ValueError, match="different numbers of classes"):
        mechanism_fields.read_folds(tmp_path / "widths")


def test_labels_must_be_those_of_the_annotation():
    found = call(make_fields())
    truth = {
        (c, d): m for c, d, m in found.table.select("compound", "concentration", "mechanism").iter_rows()
    }
    mechanism_fields.check_mechanisms(found, truth)
    with pytest.raises(ValueError, match="c1 10 is labelled 'kinase' in the predictions, but 'other'"):
        mechanism_fields.check_mechanisms(found, truth | {("c1", 10.0): "other"})


def make_profiles(count=40, seed=0, *, integers=False):
    """Treatments of 10 compounds in 4 weeks; compound c9 alone has the mechanism "lonely"."""
    generator = np.random.default_rng(seed)
    compound = np.sort(np.arange(count) % 10)
    moa = np.array(["lonely" if c == 9 else f"m{c % 3}" for c in compound])
    features = generator.normal(size=(count, 6)) + 0.5 * np.eye(6)[compound % 3]
    metadata = pl.DataFrame(
        {
            COMPOUND: [f"c{c}" for c in compound],
            "Metadata_concentration": (np.arange(count) // 10 + np.arange(count) / 100.0),
            "Metadata_moa": moa,
            WEEK: [f"w{c % 4}" for c in compound],
        }
    )
    features = np.sign(features) if integers else features  # signs have many equal similarities
    return Table(metadata, features, [f"f{i}" for i in range(6)])


@pytest.mark.parametrize("integers", [False, True])
@pytest.mark.parametrize("exclude", [(COMPOUND,), (COMPOUND, WEEK)])
def test_nearest_neighbours_are_those_of_a_slow_loop_and_of_the_metric(integers, exclude):
    table = make_profiles(integers=integers)
    found = mechanisms.nearest_neighbour_predictions(table, exclude=exclude)
    x = table.features / np.linalg.norm(table.features, axis=1, keepdims=True)
    moa = table.metadata["Metadata_moa"].to_numpy()
    codes = {column: table.metadata[column].to_numpy() for column in exclude}
    several = 0
    for i in range(len(table)):
        eligible = [j for j in range(len(table)) if j != i and all(c[i] != c[j] for c in codes.values())]
        similarities = np.round([x[i] @ x[j] for j in eligible], 5)
        nearest = np.array(eligible)[similarities == similarities.max()]
        row = found.table.row(i, named=True)
        defined = any(moa[j] == moa[i] for j in eligible)
        several += defined and len(set(moa[nearest])) > 1
        assert row["predicted"] == (" | ".join(sorted(set(moa[nearest]))) if defined else None)
        assert row["score"] == (pytest.approx((moa[nearest] == moa[i]).mean()) if defined else None)
        assert len(row["neighbour"].split(" | ")) == len(nearest)
        assert row["similarity"] == pytest.approx(similarities.max(), abs=1e-4)
    assert bool(several) == integers  # the hard case is there
    metric = retrieval.precision_at_k(
        table.features,
        retrieval.encode(moa.tolist()),
        1,
        similarity="cosine",
        exclude=[retrieval.encode(c.tolist()) for c in codes.values()],
    )
    np.testing.assert_allclose(found.scores, metric, atol=1e-6)
    order = np.random.default_rng(2).permutation(len(table))
    again = mechanisms.nearest_neighbour_predictions(table.filter(order), exclude=exclude)
    assert again.table.drop("similarity").equals(found.table.drop("similarity"))


def test_what_has_no_match_is_left_out_and_counted():
    found = mechanisms.nearest_neighbour_predictions(make_profiles())
    judged = mechanisms.accuracy(found)
    lonely = found.table.filter(pl.col("mechanism") == "lonely")
    assert lonely["predicted"].null_count() == judged.undefined == 4
    assert judged.counted == 36
    assert mechanisms.per_mechanism(found).row(0) == ("lonely", 4, 0, 0.0, None)
    assert mechanisms.spread(found).counted == 3
    assert mechanisms.confusion(found).sum() == pytest.approx(36)
    assert mechanisms.confusion(found)[0].sum() == 0
    rows = {row["metric"]: row for row in mechanisms.result_rows(found, {"run": "x"})}
    assert np.isnan(rows["accuracy/lonely"]["value"])
    assert rows["undefined"]["value"] == 4
    alone = make_profiles().filter(make_profiles().where("Metadata_moa = 'lonely'"))
    nothing = mechanisms.nearest_neighbour_predictions(alone)
    assert np.isnan(mechanisms.accuracy(nothing).share.value)
    assert np.isnan(mechanisms.spread(nothing).median)


def test_unlabelled_rows_are_no_neighbours_and_unknown_batches_are_refused():
    table = make_profiles()
    moa = table.metadata["Metadata_moa"]
    blank = table.with_metadata(
        table.metadata.with_columns(pl.when(moa == "m1").then(None).otherwise(moa).alias("Metadata_moa"))
    )
    found = mechanisms.nearest_neighbour_predictions(blank)
    kept = mechanisms.nearest_neighbour_predictions(table.filter((moa != "m1").to_numpy()))
    assert found.table.drop("similarity").equals(kept.table.drop("similarity"))
    weeks = table.metadata[WEEK].to_list()
    unknown = table.with_metadata(table.metadata.with_columns(pl.Series(WEEK, [None, *weeks[1:]])))
    with pytest.raises(ValueError, match="Metadata_week is unknown"):
        mechanisms.nearest_neighbour_predictions(unknown, exclude=(COMPOUND, WEEK))
    with pytest.raises(ValueError, match="more than one row"):
        mechanisms.nearest_neighbour_predictions(table.filter(np.array([0, 0, 1, 2])))


def published_calls():
    """The multi-scale network of Godinez et al. 2017, section 3.3: 79 %, 89 % and 57 % of three mechanisms."""
    sizes = {
        "a": 5,
        "b": 12,
        "c": 6,
        "d": 9,
        "e": 8,
        "f": 12,
        "g": 8,
        "h": 5,
        "i": 14,
        "j": 9,
        "k": 7,
        "l": 8,
    }
    wrong = {"i": 3, "j": 1, "k": 3}
    labels = np.repeat(np.arange(12), list(sizes.values()))
    calls = labels.copy()
    for name, number in wrong.items():
        calls[np.flatnonzero(labels == list(sizes).index(name))[:number]] = 0
    keys = pl.DataFrame({"compound": [f"c{i % 38}" for i in range(103)], "concentration": np.arange(103.0)})
    return mechanisms.as_called(keys, labels, np.eye(12)[calls], tuple(sizes), pl.DataFrame())


def test_published_counts_give_the_published_summary():
    found = mechanisms.spread(published_calls())
    assert (round(100 * found.median), round(100 * found.sd)) == (100, 13)  # table 1
    assert (found.mad, found.counted) == (0.0, 12)
    judged = mechanisms.accuracy(published_calls())
    assert (judged.right, judged.counted) == (96, 103)
    assert judged.share == held_out.wilson(96, 103)
    shares = mechanisms.per_mechanism(published_calls())["accuracy"].to_numpy()
    assert found.mean == pytest.approx(np.mean(shares))
    assert found.sd == pytest.approx(np.std(shares, ddof=1))
    wrong = mechanisms.mistakes(published_calls())
    assert sorted(wrong["mechanism"].to_list()) == ["i", "i", "i", "j", "k", "k", "k"]


def test_interval_over_compounds_is_wider_where_compounds_go_together():
    compounds = np.repeat(np.arange(20), 10)
    together = (compounds % 2).astype(float)
    apart = np.tile([0.0, 1.0], 100)
    wide, narrow = (mechanisms.over_compounds(values, compounds) for values in (together, apart))
    assert wide.value == narrow.value == 0.5
    assert narrow.low == narrow.high == 0.5
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 20), rel=0.1)


def settings(seed=0):
    return {
        name: make_profiles(seed=seed + i, integers=i == 2) for i, name in enumerate(("one", "two", "three"))
    }


@pytest.mark.parametrize("exclude", [(COMPOUND,), (COMPOUND, WEEK)])
def test_nested_choice_is_that_of_tables_without_the_compound(exclude):
    tables = settings()
    chosen = mechanism_choice.nested(tables, chosen_by=(COMPOUND,), exclude=exclude)
    plain = {name: mechanisms.nearest_neighbour_predictions(t, exclude=exclude) for name, t in tables.items()}
    for c, compound in enumerate(chosen.compounds):
        for s, table in enumerate(tables.values()):
            others = table.filter(table.where(f"{COMPOUND} <> '{compound}'"))
            expected = retrieval.nearest_neighbor_accuracy(
                others.features,
                retrieval.encode(others.metadata["Metadata_moa"].to_list()),
                similarity="cosine",
                exclude=retrieval.encode(others.metadata[COMPOUND].to_list()),
            )
            assert chosen.inner[c, s] == pytest.approx(expected, abs=1e-6)
        best = [n for n, v in zip(tables, chosen.inner[c], strict=True) if v == chosen.inner[c].max()]
        rows = (chosen.called.table["compound"] == compound).to_numpy()
        expected = np.mean([plain[name].calls[rows] for name in best], axis=0)
        np.testing.assert_allclose(chosen.called.calls[rows], expected)
    assert sum(chosen.frequencies().values()) == pytest.approx(10)


def test_a_choice_knows_nothing_of_the_compound_that_it_is_for():
    tables = settings()
    before = mechanism_choice.nested(tables)
    for c, compound in enumerate(before.compounds):
        changed = {}
        for name, table in tables.items():
            own = table.where(f"{COMPOUND} = '{compound}'")
            moa = np.where(own, "m2" if c % 3 != 2 else "m0", table.metadata["Metadata_moa"].to_numpy())
            features = np.where(own[:, None], -7 * table.features[:, ::-1] + 1, table.features)
            metadata = table.metadata.with_columns(pl.Series("Metadata_moa", moa))
            changed[name] = table.with_metadata(metadata).with_features(features)
        after = mechanism_choice.nested(changed)
        np.testing.assert_array_equal(after.inner[c], before.inner[c])
        assert not np.array_equal(after.inner, before.inner)


def test_equal_settings_share_the_choice():
    table = make_profiles()
    chosen = mechanism_choice.nested({"one": table, "same": table})
    assert chosen.tied == 10
    assert chosen.frequencies() == {"one": 5.0, "same": 5.0}
    assert set(chosen.called.table["setting"]) == {"one | same"}
    plain = mechanisms.nearest_neighbour_predictions(table)
    np.testing.assert_allclose(chosen.called.scores, plain.scores)


def test_settings_that_cannot_be_chosen_among_are_refused():
    table = make_profiles()
    with pytest.raises(ValueError, match="no settings"):
        mechanism_choice.nested({})
    with pytest.raises(ValueError, match="'b' and 'a' are not about the same treatments"):
        mechanism_choice.nested({"a": table, "b": table.filter(np.arange(30))})
    with pytest.raises(ValueError, match="only the compound c9"):
        mechanism_choice.nested({"a": table.filter(table.where(f"{COMPOUND} = 'c9'"))})
    two = table.filter(table.where(f"{COMPOUND} IN ('c0', 'c3')"))
    with pytest.raises(ValueError, match="without c0 no treatment has a neighbour"):
        mechanism_choice.nested({"a": two})
    assert mechanism_choice.label_free({"b": 0.5, "a": 0.5, "c": 0.1}) == ("a", 2)
    with pytest.raises(ValueError, match="undefined for 'x'"):
        mechanism_choice.label_free({"x": np.nan})


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sign_flips_are_scipys_permutation_test(seed, monkeypatch):
    differences = np.random.default_rng(seed).integers(-2, 4, 11).astype(float)
    expected = scipy.stats.permutation_test(
        (differences,), np.sum, permutation_type="samples", n_resamples=np.inf, alternative="two-sided"
    )
    assert mechanism_choice.sign_flips(differences) == pytest.approx(expected.pvalue)
    monkeypatch.setattr(mechanism_choice, "EXACT", 5)
    drawn = mechanism_choice.sign_flips(differences)
    assert drawn == pytest.approx(expected.pvalue, abs=0.01)
    assert mechanism_choice.sign_flips(np.zeros(5)) == 1.0


def test_comparison_counts_what_each_alone_has_right():
    tables = settings()
    one, two = (mechanisms.nearest_neighbour_predictions(tables[name]) for name in ("one", "two"))
    found = mechanism_choice.compare(one, two)
    known = ~np.isnan(one.scores)
    assert found.gained == ((one.scores == 1) & (two.scores == 0)).sum()
    assert found.lost == ((one.scores == 0) & (two.scores == 1)).sum()
    assert found.difference.value == pytest.approx((one.scores - two.scores)[known].mean())
    assert found.counted == known.sum() == 36
    back = mechanism_choice.compare(two, one)
    assert (back.gained, back.lost, back.p_value) == (found.lost, found.gained, found.p_value)
    same = mechanism_choice.compare(one, one)
    assert (same.difference, same.p_value, same.compounds) == (held_out.Interval(0.0, 0.0, 0.0), 1.0, 0)
    fewer = mechanisms.nearest_neighbour_predictions(tables["one"].filter(np.arange(30)))
    with pytest.raises(ValueError, match="not about the same treatments"):
        mechanism_choice.compare(one, fewer)


def test_reproducibility_knows_no_mechanisms():
    table = make_profiles()
    wells = Table(
        pl.concat([table.metadata, table.metadata]).drop("Metadata_moa"),
        np.concatenate([table.features, table.features * 1.01]),
        table.feature_names,
    )
    found = mechanism_choice.reproducibility(wells, treatment=TREATED)
    assert found == {"replicates": 1.0, "average_precision": pytest.approx(1.0)}
    noise = wells.with_features(np.random.default_rng(0).normal(size=wells.features.shape))
    assert mechanism_choice.reproducibility(noise, treatment=TREATED)["replicates"] < 0.2


def test_leaving_out_real_compounds_leaves_no_field_or_well_of_them(real_data):
    images = pl.read_csv(real_data / "bbbc021" / "BBBC021_v1_image.csv").rename(
        {"Image_Metadata_Compound": "compound", "Image_Metadata_Concentration": "concentration"}
    )
    moa = pl.read_csv(real_data / "bbbc021" / "moa.csv").filter(pl.col("moa") != "DMSO")
    fields = images.join(moa, on=["compound", "concentration"])
    assert fields.unique(["compound", "concentration"]).height == moa.height == 103
    well = ["Image_Metadata_Plate_DAPI", "Image_Metadata_Well_DAPI"]
    judged = 0
    for compound in fields["compound"].unique():
        left_out, training = (
            fields.filter(pl.col("compound") == compound),
            fields.filter(pl.col("compound") != compound),
        )
        assert training["compound"].n_unique() == 37
        for keys in (["ImageNumber", "TableNumber"], ["Image_FileName_DAPI"], well):
            assert left_out.join(training, on=keys, how="semi").height == 0
        assert training["moa"].n_unique() == 12  # every mechanism can still be learned
        judged += left_out.height
    assert judged == fields.height
