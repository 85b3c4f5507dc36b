"""Label matrices: the published one, round trips, and files that are wrong."""

import shutil

import numpy as np
import pytest
import scipy.io

from coos.data import label_matrix


def key(number):
    """A well-formed InChIKey of no compound."""
    letters = "".join(chr(65 + number // 26**place % 26) for place in range(14))
    return f"{letters}-UHFFFAOYSA-N"


def make(rows, columns, values, shape, assays=None):
    compounds = [key(i) for i in range(shape[0])]
    assays = assays or [str(100 + j) for j in range(shape[1])]
    return label_matrix.from_entries(rows, columns, values, compounds=compounds, assays=assays)


@pytest.fixture
def random_matrix():
    generator = np.random.default_rng(0)
    dense = generator.choice([0, 0, 0, 1, -1], size=(40, 9))
    dense[[3, 39]], dense[:, 5] = 0, 0  # compounds and an assay without labels
    rows, columns = np.nonzero(dense)
    order = generator.permutation(len(rows))
    rows, columns = rows[order], columns[order]
    return make(rows, columns, dense[rows, columns], dense.shape), dense


def test_published_matrix_is_read_whole_and_written_byte_for_byte(real_data, tmp_path):
    folder = real_data / "chembl_labels"
    matrix = label_matrix.read(folder)
    expected = scipy.io.mmread(folder / label_matrix.MATRIX).toarray()
    np.testing.assert_array_equal(matrix.dense(), expected)
    assert matrix.shape == (10574, 209)
    assert [counts.sum() for counts in matrix.counts()] == [19274, 36268]
    assert round(100 * matrix.density, 3) == 2.513
    assert len(set(matrix.assays)) == 202  # five are repeated, two of them twice
    assert len(set(matrix.task_names)) == 209
    repeated = {name for name in matrix.assays if matrix.assays.count(name) > 1}
    assert repeated == {"600885", "688239", "688422", "688620", "688816"}
    again = {f"{name} (2)" for name in repeated} | {"688422 (3)", "688816 (3)"}
    assert set(matrix.task_names) - set(matrix.assays) == again
    assert min(counts.min() for counts in matrix.counts()) == 10
    label_matrix.write(tmp_path / "copy", matrix)
    for name in (label_matrix.MATRIX, label_matrix.COMPOUNDS, label_matrix.ASSAYS):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()


def test_rows_and_dense_are_those_of_a_loop(random_matrix):
    matrix, dense = random_matrix
    np.testing.assert_array_equal(matrix.dense(), dense)
    assert matrix.dense().dtype == np.int8
    rows = [7, 3, 7, 0, 39]
    np.testing.assert_array_equal(matrix.dense(rows), dense[rows])
    assert matrix.dense([]).shape == (0, 9)
    for row in range(40):
        columns, values = matrix.entries(row)
        assert columns.tolist() == np.flatnonzero(dense[row]).tolist()
        assert values.tolist() == dense[row][dense[row] != 0].tolist()
    np.testing.assert_array_equal(matrix.counts(), [(dense == 1).sum(0), (dense == -1).sum(0)])
    assert matrix.density == pytest.approx((dense != 0).mean())
    for wrong in (-1, 40):
        with pytest.raises(ValueError, match=f"row {wrong} of a label matrix of 40 compounds"):
            matrix.entries(wrong)
        with pytest.raises(ValueError, match=f"row {wrong} of a label matrix of 40 compounds"):
            matrix.dense([0, wrong])


def test_round_trip_and_summary(random_matrix, tmp_path):
    matrix, dense = random_matrix
    label_matrix.write(tmp_path, matrix, summary={"release": "none"})
    read = label_matrix.read(tmp_path)
    assert (read.compounds, read.assays) == (matrix.compounds, matrix.assays)
    np.testing.assert_array_equal(read.dense(), dense)
    assert (read.rows.dtype, read.columns.dtype, read.values.dtype) == (np.int32, np.int32, np.int8)
    np.testing.assert_array_equal(scipy.io.mmread(tmp_path / label_matrix.MATRIX).toarray(), dense)
    summary = label_matrix.workdir.read_json(tmp_path / label_matrix.SUMMARY)
    assert summary["release"] == "none"
    assert summary["density"] == matrix.density
    assert summary["unlabelled_compounds"] == (dense == 0).all(1).sum()
    assert [c["inactive"] for c in summary["columns"]] == (dense == -1).sum(0).tolist()


def test_order_of_entries_does_not_matter():
    one = make([2, 0, 0], [1, 1, 0], [1, -1, 1], (3, 2))
    other = make([0, 0, 2], [0, 1, 1], [1, -1, 1], (3, 2))
    for name in ("rows", "columns", "values"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_empty_matrix(tmp_path):
    matrix = make([], [], [], (2, 3))
    label_matrix.write(tmp_path, matrix)
    assert not label_matrix.read(tmp_path).dense().any()
    assert matrix.density == 0
    assert make([], [], [], (0, 0)).density == 0


def test_task_names_number_what_repeats():
    matrix = make([], [], [], (1, 5), assays=["7", "8", "7", "7", "8"])
    assert matrix.task_names == ("7", "8", "7 (2)", "7 (3)", "8 (2)")


@pytest.mark.parametrize(
    ("entries", "match"),
    [
        (([0], [0], [2]), "value 2; labels are"),
        (([0], [0], [257]), "value 257; labels are"),  # 1 as int8
        (([0, 0], [1, 1], [1, -1]), "row 0, column 1 occurs twice"),
        (([3], [0], [1]), "row 3 of a matrix with 3"),
        (([0], [-1], [1]), "column -1 of a matrix with 2"),
        (([0, 1], [0], [1]), "2 rows, 1 columns and 1 values"),
    ],
)
def test_entries_that_cannot_be(entries, match):
    with pytest.raises(ValueError, match=match):
        make(*entries, (3, 2))


def test_names_that_cannot_be():
    with pytest.raises(ValueError, match="compound 0: 'CCO' is not an InChIKey"):
        label_matrix.from_entries([], [], [], compounds=["CCO"], assays=[])
    with pytest.raises(ValueError, match=r"compound 1: .* occurs a second time"):
        label_matrix.from_entries([], [], [], compounds=[key(1), key(1)], assays=[])
    with pytest.raises(ValueError, match=r"assay 1: '7 \(2\)' is no ID"):
        label_matrix.from_entries([], [], [], compounds=[], assays=["7", "7 (2)"])
    entries = [np.array(values, np.int32) for values in ([1, 0], [0, 0])]
    with pytest.raises(ValueError, match=r"entry 1: row 0, column 0 is out of order; use from_entries"):
        label_matrix.LabelMatrix(*entries, np.array([1, 1], np.int8), (key(0), key(1)), ("7",))


BROKEN = [
    ("label-matrix.mtx", None, r"label-matrix.mtx: missing"),
    ("row-compound-index.csv", None, r"row-compound-index.csv: missing"),
    ("label-matrix.mtx", ("integer", "real"), r"label-matrix.mtx, line 1: expected '%%MatrixMarket"),
    ("label-matrix.mtx", ("2 1 -1\n", "2 1 0\n"), r"label-matrix.mtx, line 5: value 0"),
    (
        "label-matrix.mtx",
        ("2 1 -1\n", "1 1 -1\n"),
        r"label-matrix.mtx, line 5: row 1, column 1 is on line 4 already",
    ),
    ("label-matrix.mtx", ("2 1 -1\n", "0 1 -1\n"), r"label-matrix.mtx, line 5: row 0, column 1 of 2 x 2"),
    ("label-matrix.mtx", ("2 1 -1\n", "2 3 -1\n"), r"label-matrix.mtx, line 5: row 2, column 3 of 2 x 2"),
    ("label-matrix.mtx", ("2 1 -1\n", "2 1 -1.0\n"), r"label-matrix.mtx, line 5: expected three integers"),
    ("label-matrix.mtx", ("2 1 -1\n", "2 1\n"), r"label-matrix.mtx, line 5: expected three integers"),
    ("label-matrix.mtx", ("2 1 -1\n", ""), r"label-matrix.mtx: 2 entries, but its head says 3"),
    ("label-matrix.mtx", (" 3\n", " 2\n"), r"label-matrix.mtx: 3 entries, but its head says 2"),
    ("label-matrix.mtx", ("2 2 3\n1 1 1\n2 1 -1\n2 2 1\n", ""), r"the line with rows, columns and entries"),
    (
        "label-matrix.mtx",
        ("2 2 3", "3 2 3"),
        r"row-compound-index.csv: 2 rows, but label-matrix.mtx .* has 3",
    ),
    (
        "label-matrix.mtx",
        ("2 2 3", "2 3 3"),
        r"column-assay-index.csv: 2 rows, but label-matrix.mtx .* has 3",
    ),
    (
        "row-compound-index.csv",
        ("INDEX,", "ROW,"),
        r"row-compound-index.csv, line 1: expected the header INDEX,INCHI",
    ),
    ("row-compound-index.csv", ("\n1,", "\n2,"), r"row-compound-index.csv, line 3: INDEX 2, expected 1"),
    ("row-compound-index.csv", ("-N\n1", "\n1"), r"row-compound-index.csv, line 2: '.*' is not an InChIKey"),
    (
        "row-compound-index.csv",
        (key(1), key(0)),
        r"row-compound-index.csv, line 3: .* occurs a second time, after 2",
    ),
    (
        "column-assay-index.csv",
        ("101", "1,1"),
        r"column-assay-index.csv, line 3: expected ASSAY_ID, found '1,1'",
    ),
    ("column-assay-index.csv", ("101", "1 1"), r"column-assay-index.csv, line 3: '1 1' is no ID"),
]


@pytest.mark.parametrize(("name", "change", "match"), BROKEN)
def test_wrong_files_are_named_with_their_line(name, change, match, tmp_path):
    label_matrix.write(tmp_path, make([0, 1, 1], [0, 0, 1], [1, -1, 1], (2, 2)))
    path = tmp_path / name
    if change is None:
        path.unlink()
    else:
        text = path.read_text()
        assert change[0] in text
        path.write_text(text.replace(*change))
    with pytest.raises(ValueError, match=match):
        label_matrix.read(tmp_path)


def test_what_else_is_the_same_format_is_read(tmp_path):
    """Comments, blank lines and Windows line ends, and what SciPy writes."""
    matrix = make([0, 1, 1], [0, 0, 1], [1, -1, 1], (2, 2))
    label_matrix.write(tmp_path / "a", matrix)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "a").glob("*.[cm]*"):
        path.write_bytes(path.read_bytes().replace(b"%\n", b"% made by hand\n\n").replace(b"\n", b"\r\n"))
    scipy.io.mmwrite(
        tmp_path / "b" / label_matrix.MATRIX, scipy.sparse.coo_matrix(matrix.dense().astype(int))
    )
    for folder in ("a", "b"):
        np.testing.assert_array_equal(label_matrix.read(tmp_path / folder).dense(), matrix.dense())


def test_killed_while_writing_leaves_nothing_to_read(tmp_path, monkeypatch):
    label_matrix.write(tmp_path, make([0, 1, 1], [0, 0, 1], [1, -1, 1], (2, 2)))

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(label_matrix.workdir, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        label_matrix.write(tmp_path, make([0], [0], [1], (3, 2)))
    with pytest.raises(ValueError, match=r"label-matrix.mtx: missing"):
        label_matrix.read(tmp_path)
