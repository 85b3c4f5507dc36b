"""What a simulated release of each set of whole fields holds: its pictures and where they go, and its tables.

Layouts, and so names of files and columns, are those of the official releases. What is planted is in `Release.truth`.
"""

import csv
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from coos.data import plate_maps
from coos.data.simulate import treated_fields
from coos.data.simulate.organelles import Array
from coos.data.simulate.treated_fields import Response

DMSO = "DMSO"
CLASSES = {
    "hela": (
        *("Actin", "DNA", "Endosome", "ER", "Golgia", "Golgpp", "Lysosome", "Microtubules", "Mitochondria"),
        "Nucleolus",
    ),
    "cho": ("Giantin", "Hoechst", "LAMP2", "NOP4", "Tubulin"),
    "hpa": ("Cytosol", "Golgi", "Mitochondria", "Nucleoli", "Nucleus", "Vesicles"),
}
CLASS_FILES = {"hela": ("tif", "uint16"), "cho": ("dib", "uint8"), "hpa": ("png", "uint8")}
STAINS = ("DAPI", "Tubulin", "Actin")
STAIN_NUMBERS = (1, 2, 4)  # w1, w2 and w4 in the names of files
COLUMNS = (
    "TableNumber",
    "ImageNumber",
    *(f"Image_{kind}Name_{s}" for s in STAINS for kind in ("File", "Path")),
)
METADATA = (
    *("Image_Metadata_Plate_DAPI", "Image_Metadata_Well_DAPI", "Replicate"),
    *("Image_Metadata_Compound", "Image_Metadata_Concentration"),
)
VEHICLE_WELLS = ("B02", "C02", "D02", "E11", "F11", "G11")

Draw = Callable[..., Array]


class Picture(NamedTuple):
    """One field: its files, a channel each, its dtype, and `draw(rng, height=, width=)`, its light.

    `plate` numbers plates, which differ in brightness.
    """

    paths: tuple[str, ...]
    draw: Draw
    dtype: str = "uint8"
    plate: int = 0


class Release(NamedTuple):
    """Pictures, tables (text by name of the file) and what is planted, as JSON can hold it."""

    pictures: Sequence[Picture]
    tables: Mapping[str, str]
    truth: Mapping[str, Any]


class Sizes(NamedTuple):
    """How large a release is. Plates with fixed wells have sizes of their own; these are of the other sets.

    `mechanisms` of `compounds_per_mechanism` each, at `doses` concentrations, in `replicates` plates with
    `sites_per_well` fields of each well; `images_per_class` of the class folders.
    """

    mechanisms: int = 3
    compounds_per_mechanism: int = 2
    doses: int = 2
    replicates: int = 2
    sites_per_well: int = 4
    images_per_class: int = 12


def two_drugs(sizes: Sizes) -> Release:
    """BBBC013: 96 wells; both plate maps, in concentrations and in steps."""
    del sizes
    responses = {"wortmannin": Response(1.5e-8), "LY294002": Response(4e-6)}
    pictures, values, steps = [], [], ["ImageNumber,Column,Row,SBS_Doses,SBS_Controls"]
    for number in range(96):
        well, second = plate_maps.well_name(number), number >= 48
        drug, scale, top, unit = (
            ("LY294002", "80", 80.0, 1e-6) if second else ("wortmannin", "150", 250.0, 1e-9)
        )
        column = int(well[1:])
        positive, negative = column == (1 if second else 12), column in ((2, 12) if second else (1, 2))
        dose = float(scale) if positive else 0.0 if negative else float(f"{top / 2 ** (11 - column):.3g}")
        values.append(f"{dose:g}")
        step = 10 if positive else 0 if negative else column - 2
        steps.append(f"{number + 1},{well[1:]},{well[0]},{step},{1 if positive else -1 if negative else 0}")
        draw = functools.partial(treated_fields.translocated, share=responses[drug](dose * unit))
        name = f"{number + 1:02}-{well[0]}-{well[1:]}.BMP"
        pictures.append(Picture(tuple(f"BBBC013_v1_images_bmp/Channel{c}-{name}" for c in (1, 2)), draw))
    tables = {
        "BBBC013_v1_platemap_all.txt": _lines(["Concentration", *values]),
        "1049_Metadata.csv": _lines(steps),
    }
    return Release(pictures, tables, _planted(responses))


def two_lines(sizes: Sizes) -> Release:
    """BBBC014: 96 wells, 12 concentrations along the columns, two cell lines with an EC50 each."""
    del sizes
    responses = {"MCF7": Response(5e-10), "A549": Response(8e-11)}
    pictures, values = [], []
    for number in range(96):
        well = plate_maps.well_name(number)
        exponent = -7 - 0.5 * (int(well[1:]) - 1)
        values.append(f"10^{exponent:g}")
        share = responses["MCF7" if number < 48 else "A549"](10**exponent)
        name = f"{number + 1:02}-{well[0]}-{well[1:]}-00.Bmp"
        paths = tuple(f"BBBC014_v1_images/Channel {channel}-{name}" for channel in (1, 2))
        pictures.append(Picture(paths, functools.partial(treated_fields.translocated, share=share)))
    tables = {"BBBC014_v1_platemap_all.txt": _lines(["TNF concentration (M)", *values])}
    return Release(pictures, tables, _planted(responses))


def receptor_plate(sizes: Sizes) -> Release:
    """BBBC015: rows B to D, 12 concentrations, four fields."""
    del sizes
    response = Response(3e-9)
    pictures, values = [], []
    for well in (f"{row}{column:02}" for row in "BCD" for column in range(1, 13)):
        exponent = -5 - 0.5 * (int(well[1:]) - 1)
        values.append(f"{10**exponent:.6g}")
        draw = functools.partial(treated_fields.receptors, share=response(10**exponent))
        for site in range(1, 5):
            paths = tuple(f"BBBC015_v1_images/{well}_{site}_{channel}.JPG" for channel in (1, 2))
            pictures.append(Picture(paths, draw))
    tables = {"BBBC015_v1_platemap.txt": _lines(["isoproterenol (M)", *values])}
    return Release(pictures, tables, _planted({"isoproterenol": response}))


def spotted_row(sizes: Sizes) -> Release:
    """BBBC016: row O, 11 doses and none in two replicates, three fields."""
    del sizes
    response = Response(2e-7)
    pictures, values = [], []
    for column in range(1, 25):
        dose = 0.0 if column % 12 == 0 else float(f"{50 / 3 ** (column % 12 - 1):.4g}")
        draw = functools.partial(treated_fields.gathered, share=response(dose * 1e-6))
        for site in range(3):
            values.append(f"{dose:g}")
            name = f"BBBC016_v1_images/04211_O{column:02}f{site:02}"
            pictures.append(Picture((f"{name}d2.TIF", f"{name}d0.TIF"), draw))
    tables = {"BBBC016_v1_platemap.txt": _lines(["dose (uM)", *values])}
    return Release(pictures, tables, _planted({"undisclosed": response}))


def mechanism_plates(sizes: Sizes) -> Release:
    """BBBC021: six DMSO wells a plate, and compounds at several concentrations, one plate for each replicate."""
    compounds = {
        f"SIM-{mechanism + 1}{chr(ord('a') + number)}": mechanism
        for mechanism in range(sizes.mechanisms)
        for number in range(sizes.compounds_per_mechanism)
    }
    doses = [float(f"{10 / 10**k:g}") for k in reversed(range(sizes.doses))]
    treatments: list[tuple[str, float]] = [(name, dose) for name in compounds for dose in doses]
    wells = [w for w in map(plate_maps.well_name, range(96)) if w not in VEHICLE_WELLS]
    contents = [*((well, DMSO, 0.0) for well in VEHICLE_WELLS)]
    contents += [(well, *treatment) for well, treatment in zip(wells, treatments, strict=False)]
    response = Response(5e-7)
    pictures: list[Picture] = []
    rows: list[tuple[Any, ...]] = []
    for plate in range(sizes.replicates):
        folder = f"Week{plate + 1}/Week{plate + 1}_{22001 + plate}"
        for well, compound, dose in sorted(contents):
            share = response(dose * 1e-6) if dose else 0.0
            draw = functools.partial(
                treated_fields.of_mechanism, mechanism=compounds.get(compound), share=share
            )
            for site in range(1, sizes.sites_per_well + 1):
                files = [f"{well}_s{site}_w{number}.tif" for number in STAIN_NUMBERS]
                pictures.append(Picture(tuple(f"{folder}/{file}" for file in files), draw, "uint16", plate))
                known = (folder.partition("/")[2], well, plate + 1, compound, f"{dose:.6f}")
                rows.append((1, len(rows) + 1, *(x for file in files for x in (file, folder)), *known))
    moas = [(name, f"{dose:g}", f"mechanism {compounds[name] + 1}") for name, dose in treatments]
    tables = {
        "BBBC021_v1_image.csv": _table([(*COLUMNS, *METADATA), *rows]),
        "BBBC021_v1_moa.csv": _table([("compound", "concentration", "moa"), *moas, (DMSO, "0", DMSO)]),
        "BBBC021_v1_compound.csv": _table([("compound", "smiles"), *((name, "C") for name in compounds)]),
    }
    return Release(pictures, tables, _planted(dict.fromkeys(compounds, response)) | {"mechanisms": compounds})


def class_folders(sizes: Sizes, *, name: str) -> Release:
    """HeLa, CHO and HPA: a folder for each class, with a look of its own."""
    suffix, dtype = CLASS_FILES[name]
    pictures = [
        Picture(
            (f"{label}/r{number + 1:03}.{suffix}",),
            functools.partial(treated_fields.of_look, number=look),
            dtype,
        )
        for look, label in enumerate(CLASSES[name])
        for number in range(sizes.images_per_class)
    ]
    return Release(pictures, {}, {"classes": list(CLASSES[name])})


RELEASES: Mapping[str, Callable[[Sizes], Release]] = {
    "bbbc013": two_drugs,
    "bbbc014": two_lines,
    "bbbc015": receptor_plate,
    "bbbc016": spotted_row,
    "bbbc021": mechanism_plates,
    **{name: functools.partial(class_folders, name=name) for name in CLASSES},
}


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


def _table(rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def _planted(responses: Mapping[str, Response]) -> dict[str, Any]:
    """The curves: EC50 in mol/L, hill, bottom and top."""
    return {"responses": {name: response._asdict() for name, response in responses.items()}}
