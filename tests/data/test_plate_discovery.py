"""What a release has: names in an index that are no wells, and location files of no field of view."""

import pytest

from coos.data import plate_discovery

HEADER = "Metadata_Plate,Metadata_Well,Metadata_Site,DNA\n"


@pytest.mark.parametrize("well", ["foo", "A", "12", "ABC01", "A01.1", "r01c01"])
def test_an_index_with_a_name_that_is_no_well_is_blamed_itself(tmp_path, well):
    path = tmp_path / "index.csv"
    path.write_text(HEADER + f"P1,a1,1,a.png\nP1,{well},1,b.png\n")
    with pytest.raises(ValueError, match=rf"index\.csv, line 3: Metadata_Well is '{well}'; .* such as A01"):
        plate_discovery.by_index(path, tmp_path, None, None)
    path.write_text(HEADER + "P1,a1,1,a.png\nP1,AF048,1,b.png\n")
    found = plate_discovery.by_index(path, tmp_path, None, None)
    assert found.frame["Metadata_Well"].to_list() == ["A01", "AF48"]


def test_location_files_of_no_field_are_counted_and_named_once(tmp_path, caplog):
    names = ["P1/A01-1-Nuclei.csv", "P1/A01-2-Nuclei.csv", "P1/foo-1-Nuclei.csv", "P2/B02-1-Nuclei.csv",
             "P2/C01-1-Nuclei.csv", "P2/D01-1-Nuclei.csv", "P1/notes.csv", "P1/._A01-1-Nuclei.csv"]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    found = plate_discovery.find_locations(
        tmp_path, [("P1", "A01", "1"), ("P2", "B02", "1"), ("P3", "A01", "1")]
    )
    assert found == (str(tmp_path / names[0]), str(tmp_path / names[3]), "")
    assert len(caplog.records) == 1
    said = caplog.text
    assert "4 location files are not read" in said
    assert ", ".join(str(tmp_path / names[k]) for k in (1, 2, 4)) + " and 1 more" in said
    assert not any(name in said for name in ("notes.csv", "._A01"))
    caplog.clear()
    places = [(name[:2], name[3:6], name[7:-11]) for name in names[:6]]
    assert plate_discovery.find_locations(tmp_path, places) == tuple(str(tmp_path / n) for n in names[:6])
    assert not caplog.records
