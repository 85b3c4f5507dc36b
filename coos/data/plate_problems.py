"""What is wrong with the files of plates: found before anything is written, counted, listed, or a reason to stop.

counts, problems = plate_problems.check(sites, shape=(1080, 1080))
plate_problems.refuse(problems, "release")                          # ValueError if there are any
pathlib.Path("problems.csv").write_bytes(plate_problems.as_csv(problems))
"""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from tqdm import tqdm

from coos.data import plate_files
from coos.data.plate_files import PROBLEMS, FieldError, Problem, Sites
from coos.data.sample_index import PLACE
from coos.profiles.table import listing

POLICIES = ("stop", "list")
LEAVE_OUT = (
    "missing channel",
    "no locations",
    "damaged locations",
)  # the whole field, whose cells are unknown
NAMED = 5  # fields of each kind that a message names


def first_image(sites: Sites, *, problems: str) -> np.ndarray:
    """The image (H, W, C) of the first field that can be read, which gives the size and dtype of all.

    Raises:
        ValueError: with `problems` "stop" the first field cannot be read, with "list" none can.
    """
    last: FieldError | None = None
    for site, paths in enumerate(sites.images):
        if not all(map(os.path.exists, paths)):  # which `check` reports
            continue
        try:
            return plate_files.read_field(sites, site)
        except FieldError as error:
            last = error
            if problems == "stop":
                break
    if last is None:
        first = "".join(f"; {'-'.join(x[:3])}: {x.detail}" for x in _missing_channels(sites)[:1])
        raise ValueError(f"no field of view has images of all channels{first}")
    advice = "mend it, or leave such fields out and list them: --problems=list"
    if problems == "list":
        advice = "no field of view can be read; mend them"
    raise ValueError(f"{last}; {advice}") from last


def read_like(sites: Sites, site: int, *, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """The image (H, W, C) of a field; FieldError if it cannot be read or differs from the first one."""
    image = plate_files.read_field(sites, site)
    if image.shape != tuple(shape) or image.dtype != dtype:
        found, wanted = f"{image.dtype} {image.shape}", f"{dtype} {tuple(shape)}"
        detail = f"{sites.images[site][0]}: the field is {found}; the first one is {wanted}"
        raise FieldError(Problem(*sites.place(site), "image size", detail))
    return image


def check(sites: Sites, *, shape: Sequence[int]) -> tuple[np.ndarray, list[Problem]]:
    """What is wrong with files that are missing and with location files; images are not opened.

    Goes plate by plate, so that the centres of one plate at most are in memory.

    Args:
        sites: S fields of view.
        shape: (H, W, ...) of their images.

    Returns:
        (S,) the cells inside each field, -1 where it is to be left out; and the problems, in the order of the fields.
    """
    counts, problems = np.full(len(sites), -1, np.int64), []
    plate_of = sites.frame["Metadata_Plate"].to_numpy()
    starts = np.flatnonzero(plate_of[1:] != plate_of[:-1]) + 1
    with tqdm(total=len(sites), desc="locations", unit="field", disable=None) as bar:
        for rows in np.split(np.arange(len(sites)), starts):
            part = sites.subset(rows)
            centers, _, wrong = plate_files.check_locations(part, shape=(shape[0], shape[1]))
            found = ordered([*_missing_channels(part), *wrong], part)
            unknown = {problem[:3] for problem in found if problem.problem in LEAVE_OUT}
            for row, place, inside in zip(rows.tolist(), _places(part), centers, strict=True):
                counts[row] = -1 if place in unknown else len(inside)
            problems += found
            bar.update(len(rows))
    return counts, problems


def _missing_channels(sites: Sites) -> list[Problem]:
    """Fields that lack images of some channels."""
    found = []
    for site, paths in enumerate(sites.images):
        named = zip(sites.channels, paths, strict=True)
        absent = [f"{name} ({path})" if path else name for name, path in named if not os.path.exists(path)]
        if absent:
            detail = f"there is no image of {listing(absent, 5)}"
            found.append(Problem(*sites.place(site), "missing channel", detail))
    return found


def _places(sites: Sites) -> Iterator[tuple[str, str, str]]:
    """Plate, well and site of every field."""
    return zip(*(sites.frame[name].to_list() for name in PLACE), strict=True)


def count(problems: Iterable[Problem]) -> dict[str, int]:
    """How many there are of each kind that occurs."""
    numbers = Counter(problem.problem for problem in problems)
    return {kind: numbers[kind] for kind in PROBLEMS if numbers[kind]}


def refuse(problems: Sequence[Problem], where: str) -> None:
    """ValueError with the number of each kind and the first fields that have it, if there are any."""
    if not problems:
        return
    kinds = []
    for kind, number in count(problems).items():
        names = ["-".join(problem[:3]) for problem in problems if problem.problem == kind]
        kinds.append(f"{number} {kind}: {listing(names, NAMED)}")
    raise ValueError(
        f"{where}: {len(problems)} problems ({'; '.join(kinds)}). The first: {problems[0].detail}. "
        "Mend the files, or leave out what they concern and list it: --problems=list"
    )


def ordered(problems: Iterable[Problem], sites: Sites) -> list[Problem]:
    """In the order of the fields, and of one field as they came."""
    position = {place: site for site, place in enumerate(_places(sites))}
    return sorted(problems, key=lambda problem: position[problem[:3]])


def as_csv(problems: Iterable[Problem]) -> bytes:
    """The table that lists them: plate, well, site, problem, detail."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Problem._fields)
    writer.writerows(problems)
    return text.getvalue().encode()
