"""Every error the package raises on purpose.

A caller who wants to catch "anything hardnet-match knows to be wrong" catches `HardnetMatchError`; the command line
turns it into one line on stderr. Each message says what was wrong, where, and what to do about it.
"""

from __future__ import annotations


class HardnetMatchError(Exception):
    """Base of all errors raised on purpose by this package."""


class OptionError(HardnetMatchError, ValueError):
    """An option has a value that cannot work (wrong preset name, negative count, ...)."""


class DataError(HardnetMatchError, ValueError):
    """An array handed over has the wrong shape, dtype or content."""


class ImageError(HardnetMatchError):
    """An image (or its mask) cannot be read as a whole picture. Folder jobs skip it, named, with this reason."""


class WeightsError(HardnetMatchError):
    """A weights file is missing, damaged, hostile or made for another network."""


class StoreError(HardnetMatchError):
    """A features, matches or pairs file is missing, damaged or made with other settings."""


class ReconstructionError(HardnetMatchError):
    """A COLMAP database or model cannot be written, read or built."""


class TrainingError(HardnetMatchError):
    """A training run cannot start, cannot go on, or is not the one its folder holds."""


class ExportError(HardnetMatchError):
    """A network cannot be exported, or the exported file does not compute what the network does."""


class PluginError(HardnetMatchError):
    """A part that another package brings, or a module given as a part, cannot be loaded or does not do its work."""


class ClusterError(HardnetMatchError):
    """A cluster is not to be reached, or its workers cannot do the work."""
