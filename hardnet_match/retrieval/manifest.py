"""The manifest of an index: the one file that says what counts. It is replaced in one step, last of all."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .files import write_text
from .method import METHODS

FORMAT = "hardnet-match index"
VERSION = 1
NAME = "manifest.json"


@dataclass
class Manifest:
    """What an index consists of.

    Args:
        method: name of the retrieval method.
        parameters: of the method.
        settings: of the features, as their file has them.
        codebook: hash of the codebook.
        identity: of this index; another one made in its place has another.
        generation: counts commits.
        next: number of the next segment to be written; never used twice.
        state: file name -> bytes of the method's state.
        segments: entries of the segments, oldest images first.
        norms: file name and bytes of the norms that fit these segments, or None.
    """

    method: str
    parameters: dict[str, Any]
    settings: dict[str, Any]
    codebook: str
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    generation: int = 0
    next: int = 0
    state: dict[str, int] = field(default_factory=dict)
    segments: list[dict[str, Any]] = field(default_factory=list)
    norms: dict[str, Any] | None = None

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of an index folder.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        path = folder / NAME
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            if stored.pop("format") != FORMAT:
                raise ValueError("it is of another kind")
            version = stored.pop("version")
            if version != VERSION:
                raise StoreError(f"{path}: index version {version}, this package reads {VERSION}")
            found = cls(**stored)
            if found.method not in METHODS:
                raise ValueError(f"its retrieval method {found.method!r} is none of {', '.join(METHODS)}")
            for entry in found.segments:
                if not {"file", "images", "features", "postings", "bytes", "arrays"} <= entry.keys():
                    raise ValueError("a segment's entry lacks something")
            return found
        except (FileNotFoundError, NotADirectoryError):
            raise StoreError(f"{folder}: no index there") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"{path}: not a readable manifest of an index: {error}") from error

    def write(self, folder: Path) -> None:
        """Commit: from here on the index is what this manifest says."""
        self.generation += 1
        stored = {"format": FORMAT, "version": VERSION, **asdict(self)}
        write_text(folder / NAME, json.dumps(stored, indent=1, sort_keys=True))


def sweep(folder: Path, manifest: Manifest) -> None:
    """Remove what the manifest does not name: left by a killed writer, or merged into another segment.

    Only the writer that holds the lock may do so. What cannot be removed (a reader has it open on Windows) stays for
    the next time.
    """
    kept = {entry["file"] for entry in manifest.segments} | ({manifest.norms["file"]} if manifest.norms else set())
    for path in [*(folder / "segments").glob("*.seg*"), *folder.glob("norms-*.npy*")]:
        if path.name not in kept:
            with suppress(OSError):
                path.unlink()


def segment_path(folder: Path, manifest: Manifest) -> Path:
    """Where the next segment goes."""
    number, manifest.next = manifest.next, manifest.next + 1
    return folder / "segments" / f"{number:08d}.seg"
