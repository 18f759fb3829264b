"""An extractor that makes features like those of a file, from the settings that the file has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, StoreError, WeightsError
from ..presets import Composition
from ..store.hdf5 import differences
from ..weights import ENTRIES, cache_folder, file_hash

if TYPE_CHECKING:
    from ..extractor import FeatureExtractor

PARTS = ("detector", "shape", "orientation", "descriptor")
OPTION = {"descriptor": "weights", **{part: f"{part}_weights" for part in PARTS[:3]}}
# Of the job, not of the extractor: a query has no mask, and its size is seen to where it is read.
OF_THE_JOB = ("max_size", "masks", "store")


def extractor_like(
    settings: Mapping[str, Any], what: str, *, weights: Sequence[str] = (), device: str = "auto"
) -> FeatureExtractor:
    """The extractor whose settings are these.

    The weights are found by their hashes: among the files given, the bundled ones and the downloaded ones.

    Args:
        settings: of a features file of this package.
        what: whose settings they are, for messages.
        weights: names or files to look among.

    Raises:
        StoreError: the settings name no parts (another program made the features), or no extractor of this version
            has such settings.
        OptionError: weights are not to be found; the message says whose.
    """
    if not all(isinstance(settings.get(part), str) for part in PARTS):
        raise StoreError(
            f"{what} does not say how its features were made (another program wrote them), so that no photo can be "
            "described likewise; ask with the name of an image in it, or with features of the photo (--features)"
        )
    if settings.get("modules"):
        raise StoreError(
            f"{what} was made with modules given in Python ({differences({}, settings['modules'])}), which no name "
            "brings back; ask with the name of an image in it, or with features of the photo (--features)"
        )
    from ..extractor import FeatureExtractor

    hashes = {str(part): str(value) for part, value in dict(settings.get("weights") or {}).items()}
    chosen: dict[str, Any] = {
        OPTION[part]: _found(value, str(settings[part]), part, what, weights)
        for part, value in hashes.items()
        if part in OPTION
    }
    precision = str(settings.get("precision", "auto"))
    if precision == "int8" and device == "auto":
        device = "cpu"  # integers are for processors only
    extractor = FeatureExtractor(
        Composition(**{part: settings[part] for part in PARTS}),
        max_keypoints=int(settings.get("max_keypoints", 4096)),
        precision=precision,
        device=device,
        **chosen,
    )
    if "scale_weight" in settings and hasattr(extractor.detector, "scale_weight"):
        extractor.detector.scale_weight = float(settings["scale_weight"])
    wanted = {key: value for key, value in settings.items() if key not in OF_THE_JOB}
    if extractor.settings != wanted:
        raise StoreError(
            f"{what}: no extractor of this version has its settings ({differences(wanted, extractor.settings)}); "
            "use the version that made it, or extract and index again"
        )
    return extractor


def _found(digest: str, architecture: str, part: str, what: str, given: Sequence[str]) -> str:
    """Name or file of the weights with this hash."""
    for name in given:
        if file_hash(name) == digest:
            return name
    for name, entry in ENTRIES.items():
        if entry.architecture != architecture:
            continue
        # Nothing is downloaded to find out: what is not here, and has no published hash, is not what was used here.
        known = bool(entry.sha256) and str(entry.sha256)[:16] == digest
        here = entry.bundled or (cache_folder() / entry.file).is_file()
        try:
            if known or (here and file_hash(name) == digest):
                return name
        except WeightsError:
            continue
    looked = f"not among {', '.join(given)}, and " if given else ""
    raise OptionError(
        f"{what} was made with {part} weights of hash {digest}, which are {looked}neither bundled nor downloaded here: "
        "say --weights FILE with the file that made it"
    )
