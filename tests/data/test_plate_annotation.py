"""What was on the wells: barcodes, plate maps, mechanisms and dose levels."""

import polars as pl
import pytest

from coos.data import plate_annotation, plate_files

BARCODES = "Assay_Plate_Barcode,Plate_Map_Name,Batch_Number\n0010,M1,1\n0011,M1,2\n0012,M2,2\n"
HEADER = "plate_map_name\twell_position\tbroad_sample\tmmoles_per_liter\tsolvent\n"
MAPS = {
    "M1": HEADER + "M1\tA01\t\t\tDMSO\nM1\tA02\tB-1\t0.11\tDMSO\nM1\tB01\tB-2\t9.5\tDMSO\n",
    "M2": HEADER + "M2\tA01\tB-3\t300\tDMSO\n",
}
MECHANISMS = (
    "broad_sample\tpert_iname\tmoa\ttarget\tphase\nB-1\tone\tx inhibitor|y agonist\tX|Y\t1\nB-2\ttwo\t\t\t2\n"
)


@pytest.fixture
def metadata(tmp_path):
    """A folder of annotation: two maps, three plates, three compounds of which one has no entry."""
    (tmp_path / "platemap").mkdir()
    (tmp_path / "barcode_platemap.csv").write_text(BARCODES)
    for name, text in MAPS.items():
        (tmp_path / "platemap" / f"{name}.txt").write_text(text)
    (tmp_path / "repurposing_info_external_moa_map_resolved.tsv").write_text(MECHANISMS)
    return tmp_path


def places(*names, **further):
    columns = zip(*(name.split("-") for name in names), strict=True)
    frame = pl.DataFrame(
        dict(zip(["Metadata_Plate", "Metadata_Well", "Metadata_Site"], columns, strict=True))
    )
    return frame.with_columns(pl.Series(name, values) for name, values in further.items())


def known(frame):
    columns = [
        "Plate_Map_Name",
        "Batch_Number",
        "broad_sample",
        "mmoles_per_liter",
        "pert_iname",
        "moa",
        "dose_level",
    ]
    return frame.select(f"Metadata_{name}" for name in columns).rows()


def test_every_site_gets_what_is_known_of_its_well(metadata):
    frame = places("0012-A01-1", "0010-B01-2", "0010-A02-1", "0011-A01-1", "0010-B01-1")
    annotated = plate_annotation.annotate(frame, metadata)
    assert annotated.select(frame.columns).equals(frame)
    two = ("M1", 1, "B-2", 9.5, "two", None, 6)
    assert known(annotated) == [
        ("M2", 2, "B-3", 300.0, None, None, 7),
        two,
        ("M1", 1, "B-1", 0.11, "one", "x inhibitor|y agonist", 2),
        ("M1", 2, "DMSO", None, None, None, None),
        two,
    ]
    assert annotated["Metadata_solvent"].to_list() == ["DMSO"] * 5
    assert annotated["Metadata_target"].to_list() == [None, None, "X|Y", None, None]


def test_dose_levels_are_those_asked_for(metadata):
    frame = places("0010-A02-1", "0010-B01-2", "0012-A01-1")
    annotated = plate_annotation.annotate(frame, metadata, dose_levels=(1, 100))
    assert annotated["Metadata_dose_level"].to_list() == [1, 1, 2]


def test_a_folder_may_have_any_name(metadata):
    other = metadata.with_name("maps [2016]*")
    metadata.rename(other)
    assert known(plate_annotation.annotate(places("0012-A01-1"), other))[0][:3] == ("M2", 2, "B-3")


def test_an_index_may_say_the_same_and_not_something_else(metadata):
    frame = places("0010-A01-1", "0010-A02-1", Metadata_broad_sample=["DMSO", "B-1"], Metadata_Split=[1, 2])
    annotated = plate_annotation.annotate(frame, metadata)
    assert annotated["Metadata_broad_sample"].to_list() == ["DMSO", "B-1"]
    assert annotated["Metadata_Split"].to_list() == [1, 2]
    wrong = places("0010-A01-1", "0010-A02-1", Metadata_broad_sample=["DMSO", "B-2"])
    with pytest.raises(ValueError, match=r"txt: Metadata_broad_sample exists already .* 'B-2', not 'B-1'"):
        plate_annotation.annotate(wrong, metadata)


ERRORS = {
    "barcode": (None, "", r"barcode_platemap.csv: 1 of 2 rows have no annotation: 1 keys, such as Metadata_Plate=0099"),
    "well": (
        "platemap/M1.txt", MAPS["M1"].rsplit("M1\tB01")[0],
        r"platemap/\*.txt: 1 of 1 rows .* such as Metadata_Plate_Map_Name=M1, Metadata_Well=B01 \(1 rows\)"),
    "map": ("platemap/M1.txt", HEADER + "M7\tB01\tB-1\t1\tDMSO\n", "such as Metadata_Plate_Map_Name=M1"),
    "no barcodes": ("barcode_platemap.csv", None, "barcode_platemap.csv: no such file"),
    "barcode twice": ("barcode_platemap.csv", BARCODES + "0010,M2,1\n", "more than one row .*Barcode=0010"),
    "no mechanisms": ("repurposing_info_external_moa_map_resolved.tsv", None, "resolved.tsv: no such file"),
    "no column": (
        "repurposing_info_external_moa_map_resolved.tsv", MECHANISMS.replace("moa", "MOA"), "no column Metadata_moa"),
    "well twice": (
        "platemap/M1.txt", MAPS["M1"] + "M1\tB01\tB-1\t1\tDMSO\n", r"more than one row.*well_position=B01"),
    "solvent": (
        "platemap/M1.txt", MAPS["M1"].replace("\t\t\tDMSO", "\t\t\tH2O"),
        r"1 wells have no sample and another solvent than DMSO, such as .*Metadata_well_position=A01"),
    "other columns": ("platemap/M1.txt", MAPS["M1"].replace("solvent", "fluid"), "files read together need the same"),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_what_does_not_match_is_named(metadata, case):
    name, text, message = ERRORS[case]
    frame = places("0010-B01-1")
    if name is None:
        frame = places("0010-B01-1", "0099-B01-1")
    elif text is None:
        (metadata / name).unlink()
    else:
        (metadata / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        plate_annotation.annotate(frame, metadata)


def test_what_can_be_done_about_it_is_what_scripts_can_do(metadata):
    advice = r"complete the metadata file, or leave out plate {}: name the others with --plates$"
    with pytest.raises(ValueError, match="Metadata_Plate=0099.*" + advice.format("0099")):
        plate_annotation.annotate(places("0010-B01-1", "0099-B01-1"), metadata)
    message = r"2 of 4 rows .*: 1 keys, such as .*=M1, Metadata_Well=H12 \(2 rows\); " + advice.format(
        "0011, 0010"
    )
    with pytest.raises(ValueError, match=message):
        plate_annotation.annotate(places("0011-H12-1", "0012-A01-1", "0010-H12-1", "0010-A01-1"), metadata)


def test_maps_may_be_called_by_numbers(metadata):
    (metadata / "barcode_platemap.csv").write_text(BARCODES.replace(",M", ","))
    for name, text in MAPS.items():
        (metadata / "platemap" / f"{name}.txt").write_text(text.replace("M1", "1").replace("M2", "2"))
    annotated = plate_annotation.annotate(places("0012-A01-1", "0010-B01-2"), metadata)
    assert annotated["Metadata_broad_sample"].to_list() == ["B-3", "B-2"]


def test_plate_maps_without_samples_or_doses_are_refused(metadata):
    for name in MAPS:
        path = metadata / "platemap" / f"{name}.txt"
        path.write_text(path.read_text().replace("mmoles_per_liter", "dose"))
    with pytest.raises(ValueError, match=r"platemap/\*.txt: no column Metadata_mmoles_per_liter"):
        plate_annotation.annotate(places("0010-B01-1"), metadata)


def test_the_real_plates_meet_their_real_maps(real_data):
    sites = plate_files.find(real_data / "lincs_example")
    frame = plate_annotation.annotate(sites.frame, real_data / "lincs_metadata")
    assert frame.select(sites.frame.columns).equals(sites.frame)
    assert set(frame["Metadata_Plate_Map_Name"]) == {"C-7161-01-LM6-014"}
    batches = dict(frame.select("Metadata_Plate", "Metadata_Batch_Number").iter_rows())
    third = dict.fromkeys(["SQ00015230", "SQ00015231", "SQ00015232", "SQ00015233"], 3)
    assert batches == {"SQ00015198": 1} | third
    names = ["Well", "broad_sample", "pert_iname", "mmoles_per_liter", "dose_level", "solvent"]
    wells = frame.select(f"Metadata_{name}" for name in names).unique().sort("Metadata_Well").rows()
    assert wells == [
        ("A01", "DMSO", None, None, None, "DMSO"),
        ("A13", "BRD-K55966568-001-05-4", "orantinib", 10.0, 6, "DMSO"),
        ("J18", "DMSO", None, None, None, "DMSO"),
        ("P13", "BRD-K41599323-001-02-3", "lonafarnib", 10.0, 6, "DMSO"),
    ]
    mechanisms = dict(frame.select("Metadata_pert_iname", "Metadata_moa").iter_rows())
    assert mechanisms["lonafarnib"] == "farnesyltransferase inhibitor"
    assert "FGFR inhibitor" in mechanisms["orantinib"].split("|")
    assert mechanisms[None] is None


def test_all_real_plates_and_wells_have_maps(real_data):
    """The tables of cell counts name 52,223 wells of 136 plates (one had no cells)."""
    counts = sorted((real_data / "lincs_metadata" / "cell_count").glob("*/*.csv"))
    frame = pl.concat(pl.read_csv(path, infer_schema=False) for path in counts)
    frame = frame.select(
        pl.col("Image_Metadata_Plate").alias("Metadata_Plate"),
        pl.col("Image_Metadata_Well").alias("Metadata_Well"),
    )
    annotated = plate_annotation.annotate(frame, real_data / "lincs_metadata")
    assert (annotated["Metadata_Plate"].n_unique(), annotated.height) == (136, 52_223)
    controls = annotated.filter(pl.col("Metadata_broad_sample") == "DMSO")
    assert controls.height == 3264  # 24 of every plate
    at_ten = annotated.filter(pl.col("Metadata_dose_level") == 6)
    assert at_ten["Metadata_mmoles_per_liter"].median() == pytest.approx(10, rel=0.01)
    treated = annotated.filter(pl.col("Metadata_broad_sample") != "DMSO")
    assert treated["Metadata_dose_level"].null_count() == 0
