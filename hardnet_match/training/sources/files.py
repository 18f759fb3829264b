"""A data set's files, in a folder or still in the zip they came in."""

from __future__ import annotations

import zipfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, ImageError

MAX_BYTES = 1 << 30
"""Most that one member of a zip may unpack to."""


class Files:
    """Read files by name; in a zip, names are relative to the only folder at its root, if there is one.

    Raises:
        DataError: there is no such folder or zip, or it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._members: dict[str, zipfile.ZipInfo] | None = None
        if path.is_dir():
            return
        if not path.is_file():
            raise DataError(f"{path}: no such folder or zip")
        try:
            self._archive = zipfile.ZipFile(path)  # open as long as this object: its list is long to read
            members = {info.filename: info for info in self._archive.infolist() if not info.is_dir()}
        except Exception as error:  # zipfile raises anything on damaged archives
            raise DataError(f"{path} is neither a folder nor a whole zip: {error}") from error
        roots = {name.split("/")[0] for name in members}
        if len(roots) == 1 and all("/" in name for name in members):
            members = {name.partition("/")[2]: info for name, info in members.items()}
        self._members = members

    def names(self) -> list[str]:
        """Names of the files at the top, sorted."""
        if self._members is not None:
            return sorted(name for name in self._members if "/" not in name)
        return sorted(path.name for path in self.path.iterdir() if path.is_file())

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self._members[name].file_size if self._members is not None else (self.path / name).stat().st_size

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: it is missing, damaged or too large.
        """
        where = self.path / name
        try:
            if self._members is None:
                return where.read_bytes()
            info = self._members[name]
            if info.file_size > MAX_BYTES:
                raise DataError(f"{where} would unpack to {info.file_size} bytes")
            return self._archive.read(info)
        except KeyError:
            raise DataError(f"{self.path} has no {name}") from None
        except FileNotFoundError:
            raise DataError(f"{self.path} has no {name}") from None
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{where} cannot be read: {error}") from error

    def grey(self, name: str) -> NDArray[np.uint8]:
        """A picture as (H, W) uint8, exactly as stored.

        Raises:
            ImageError: it cannot be decoded.
            DataError: as `read`.
        """
        data = np.frombuffer(self.read(name), np.uint8)
        pixels = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
        if pixels is None:
            raise ImageError(f"{self.path / name}: not a whole picture; fetch it again from its source")
        return np.asarray(pixels, np.uint8)
