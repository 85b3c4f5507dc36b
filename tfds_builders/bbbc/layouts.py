"""Which module reads the files of which set."""

import dataclasses
import inspect
import pathlib
from collections.abc import Callable
from typing import Any

from coos.data.plate_fields import Fields
from tfds_builders.bbbc import bbbc013, bbbc014, bbbc015, bbbc016, bbbc021, class_folders


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a set is found (`find(source, **options)`), what it shows, and where it is from."""

    find: Callable[..., Fields]
    description: str
    homepage: str


BBBC = "https://bbbc.broadinstitute.org/"
LAYOUTS = {
    "bbbc013": Layout(bbbc013.find, "FKHR-GFP goes into the nucleus; two drugs.", f"{BBBC}BBBC013"),
    "bbbc014": Layout(bbbc014.find, "NF-kB goes into the nucleus; two cell lines.", f"{BBBC}BBBC014"),
    "bbbc015": Layout(bbbc015.find, "Arrestin gathers in spots; isoproterenol.", f"{BBBC}BBBC015"),
    "bbbc016": Layout(bbbc016.find, "Arrestin gathers in spots; a compound not named.", f"{BBBC}BBBC016"),
    "bbbc021": Layout(bbbc021.find, "Mechanisms of 113 compounds.", f"{BBBC}BBBC021"),
    "hela": Layout(
        class_folders.hela, "Organelles of HeLa cells.", "https://doi.org/10.1093/bioinformatics/btx069"
    ),
    "cho": Layout(
        class_folders.cho, "Organelles of CHO cells.", "https://doi.org/10.1093/bioinformatics/btx069"
    ),
    "hpa": Layout(class_folders.hpa, "Proteins with a single location.", "https://www.proteinatlas.org"),
}


def find(name: str, source: pathlib.Path, **options: Any) -> Fields:
    """The fields of a set; ValueError for an option that it does not have. An option None is not given."""
    layout = LAYOUTS[name]
    given = {key: value for key, value in options.items() if value is not None}
    unknown = sorted(set(given) - set(inspect.signature(layout.find).parameters))
    if unknown:
        raise ValueError(f"{unknown[0]}: {name} does not have this option")
    return layout.find(source, **given)
