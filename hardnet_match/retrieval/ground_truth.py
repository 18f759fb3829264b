"""Which images a query should find: the benchmarks' files, one's own JSON, or a folder of groups.

Known forms: the classic Oxford5k / Paris6k folder (`*_query.txt`, `*_good.txt`, `*_ok.txt`, `*_junk.txt`); pickles
`gnd_*.pkl` of the revisited and of the classic benchmark (`imlist`, `qimlist`, `gnd`), read without running anything;
JSON; a folder of photos whose subfolders are the groups.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import StoreError
from ..images import list_images
from ..metrics.ranking import revisited_protocols
from .ground_truth_files import Box, own_json, read_box, read_pickle

QUERY = "_query.txt"
PARTS = ("good", "ok", "junk")
# Oxford5k's query files name their images with this before the name that the image has.
OXFORD_PREFIX = "oxc1_"

Setup = tuple[frozenset[str], frozenset[str]]


@dataclass(frozen=True)
class TruthQuery:
    """One query.

    Args:
        name: what it is called.
        image: the image it is cut from, as the source writes it (perhaps without folder and extension).
        box: (x0, y0, x1, y1) in pixels of the image file, edges as PIL's `crop` takes them; None: the whole image.
        setups: protocol -> (positives, junk), names of images.
    """

    name: str
    image: str
    box: Box | None
    setups: Mapping[str, Setup]


@dataclass(frozen=True)
class GroundTruth:
    """All queries of a benchmark.

    Args:
        source: the file or folder it was read from.
        kind: `classic`, `revisited`, `json` or `groups`.
        queries: in the source's order.
        apart: query images that the protocol keeps out of the database; where an index holds them all the same they
            count neither for nor against any query.
        missing: images that are named but not in the index (after `bound`).
    """

    source: str
    kind: str
    queries: tuple[TruthQuery, ...]
    apart: frozenset[str] = frozenset()
    missing: frozenset[str] = field(default=frozenset())

    @property
    def protocols(self) -> tuple[str, ...]:
        """Names of the setups, in the order they are told."""
        return tuple(dict.fromkeys(name for query in self.queries for name in query.setups))

    def bound(self, names: Sequence[str]) -> GroundTruth:
        """The same with the names that an index has: the benchmarks leave out folders and extensions.

        A query's own image, and all that are `apart`, are junk unless they are positives. Names that the index lacks
        stay as they are and are listed in `missing`.

        Raises:
            StoreError: none of its images is in the index, or a name could mean two of them.
        """
        known = NameFinder(names)
        missing: set[str] = set()

        def resolve(images: Iterable[str]) -> frozenset[str]:
            found = set()
            for image in images:
                name = known.find(image)
                if name is None:
                    missing.add(image)
                found.add(name or image)
            return frozenset(found)

        apart = frozenset(name for image in self.apart if (name := known.find(image)))
        queries = []
        for query in self.queries:
            image = known.find(query.image) or query.image
            setups: dict[str, Setup] = {}
            for protocol, (positives, junk) in query.setups.items():
                wanted = resolve(positives)
                setups[protocol] = wanted, (resolve(junk) | apart | {image}) - wanted
            queries.append(replace(query, image=image, setups=setups))
        sought = {image for query in self.queries for positives, junk in query.setups.values() for image in positives}
        if sought and sought <= missing:
            few = ", ".join(sorted(sought)[:3])
            raise StoreError(
                f"{self.source}: none of its {len(sought)} images is in the index (it speaks of {few}; the index of "
                f"{', '.join(names[:3]) or 'nothing'}); this ground truth is for other photos"
            )
        return replace(self, queries=tuple(queries), apart=apart, missing=frozenset(missing))


class NameFinder:
    """Finds an index's name for a benchmark's: exact, then without extension, then without folders, then both."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)
        self._tables: list[dict[str, list[str]]] = [{}, {}, {}]
        for name in names:
            last = name.rpartition("/")[2]
            for table, key in zip(self._tables, (_stem(name), last, _stem(last)), strict=True):
                table.setdefault(key, []).append(name)

    def find(self, image: str) -> str | None:
        """The index's name, or None.

        Raises:
            StoreError: it could be two of them.
        """
        if image in self._names:
            return image
        for table in self._tables:
            found = table.get(image, [])
            if len(found) > 1:
                raise StoreError(f"{image!r} of the ground truth could be {found[0]!r} or {found[1]!r} of the index")
            if found:
                return found[0]
        return None


def _stem(name: str) -> str:
    folder, slash, last = name.rpartition("/")
    return folder + slash + (os.path.splitext(last)[0])


def read_ground_truth(source: str | Path, *, distractors: Collection[str] = ()) -> GroundTruth:
    """Read a ground truth, whatever its form.

    Args:
        source: a pickle, a JSON file, a folder of `*_query.txt` and its companions, or a folder of photos in which
            each subfolder is a group.
        distractors: of a folder of groups, the subfolders that are none: their images are only in the way. So are
            images in the folder itself, and groups of one.

    Raises:
        StoreError: missing, damaged, of an unknown form, contradicting itself, or referring to code.
    """
    path = Path(source)
    if path.is_dir():
        if any(path.glob(f"*{QUERY}")):
            return _classic_folder(path)
        return _groups(path, distractors)
    if not path.is_file():
        raise StoreError(f"{path}: no such ground truth; it is a .pkl or .json file or a folder")
    with path.open("rb") as file:
        head = file.read(64).lstrip()
    if head.startswith(b"{"):
        return _from_json(path)
    return _from_pickle(path)


def _classic_folder(folder: Path) -> GroundTruth:
    queries = []
    for file in sorted(folder.glob(f"*{QUERY}")):
        words = _lines(file)
        name = file.name.removesuffix(QUERY)
        if len(words) != 1 or len(parts := words[0].rsplit(maxsplit=4)) != 5:
            raise StoreError(f"{file}: a query file is one line of an image and four numbers x0 y0 x1 y1")
        lists = {part: frozenset(_lines(folder / f"{name}_{part}.txt")) for part in PARTS}
        setup = lists["good"] | lists["ok"], lists["junk"]
        if clash := setup[0] & setup[1]:
            raise StoreError(f"{folder}: {sorted(clash)[0]!r} is both wanted and junk for {name}")
        box = read_box(parts[1:], str(file))
        queries.append(TruthQuery(name, parts[0].removeprefix(OXFORD_PREFIX), box, {"classic": setup}))
    return GroundTruth(str(folder), "classic", tuple(queries))


def _lines(file: Path) -> list[str]:
    try:
        return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise StoreError(
            f"{file}: cannot be read: {error.strerror}; each query has four files beside each other"
        ) from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{file}: is not text") from error


def _groups(folder: Path, distractors: Collection[str]) -> GroundTruth:
    names = list_images(folder)
    for name in distractors:
        if not (folder / name).is_dir():
            raise StoreError(f"{folder}: has no folder {name!r} of distractors")
    truth = truth_of_groups(names, distractors, str(folder))
    if not truth.queries:
        raise StoreError(
            f"{folder}: neither {QUERY.replace('_', '*_')} files nor subfolders with two photos or more in it"
        )
    return truth


def truth_of_groups(names: Iterable[str], distractors: Collection[str] = (), source: str = "groups") -> GroundTruth:
    """Each image asks for the others that share its first folder.

    Args:
        names: of images, relative, with '/'.
        distractors: first folders that are no groups.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        group, slash, _ = name.partition("/")
        if slash and group not in distractors:
            groups.setdefault(group, []).append(name)
    queries = [
        TruthQuery(name, name, None, {"groups": (frozenset(members) - {name}, frozenset({name}))})
        for members in groups.values()
        if len(members) > 1
        for name in members
    ]
    return GroundTruth(source, "groups", tuple(queries))


def _from_pickle(path: Path) -> GroundTruth:
    known, asked, rows = read_pickle(path)
    queries = []
    for image, row in zip(asked, rows, strict=True):
        lists = {key: frozenset(known[number] for number in numbers) for key, numbers in row.lists.items()}
        queries.append(TruthQuery(image, image, row.box, _setups(lists, "ok", "classic", f"{path}: {image}")))
    revisited = "easy" in rows[0].lists
    apart = frozenset(asked) - frozenset(known) if revisited else frozenset()
    return GroundTruth(str(path), "revisited" if revisited else "classic", tuple(queries), apart)


def _from_json(path: Path) -> GroundTruth:
    rows, apart = own_json(path)
    queries = []
    for row in rows:
        lists = {key: frozenset(names) for key, names in row.lists.items()}
        setups = _setups(lists, "positives", "json", f"{path}: {row.name}")
        queries.append(TruthQuery(row.name, row.image, row.box, setups))
    return GroundTruth(str(path), "json", tuple(queries), frozenset(q.image for q in queries) if apart else frozenset())


def _setups(lists: Mapping[str, frozenset[str]], wanted: str, protocol: str, where: str) -> dict[str, Setup]:
    """The one setup of lists with `wanted`, the three of lists with easy and hard."""
    if wanted in lists:
        setups = {protocol: (lists[wanted], lists["junk"])}
    else:
        setups = revisited_protocols(lists["easy"], lists["hard"], lists["junk"])
    for positives, junk in setups.values():
        if clash := positives & junk:
            raise StoreError(f"{where}: {sorted(clash)[0]!r} is both wanted and junk")
    return setups
