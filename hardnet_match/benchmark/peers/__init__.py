"""The peers by name. One more is one class and one line here; whatever else writes hloc's HDF5 is given as a file."""

from __future__ import annotations

from importlib import import_module

from ...errors import OptionError
from .base import Peer

_WHERE = {
    "sift": ("opencv", "Sift"),
    "rootsift": ("opencv", "RootSift"),
    "akaze": ("opencv", "Akaze"),
    "orb": ("opencv", "Orb"),
    "colmap-sift": ("colmap", "ColmapSift"),
    "colmap-sift-affine-dsp": ("colmap", "ColmapSiftAffine"),
    "kornia-hesaffnet-hardnet": ("kornia", "KorniaHesAffNet"),
    "kornia-dogaffnet-hardnet": ("kornia", "KorniaDoGAffNet"),
    "kornia-keynetaffnet-hardnet": ("kornia", "KorniaKeyNet"),
}
PEERS = tuple(_WHERE)

__all__ = ["PEERS", "Peer", "make_peer"]


def make_peer(name: str, max_keypoints: int, detector_weights: str | None = None) -> Peer:
    """A peer by name.

    Args:
        max_keypoints: features given of an image at most.
        detector_weights: of the peers that have a learned detector.

    Raises:
        OptionError: no such peer, or it lacks weights.
    """
    if name not in _WHERE:
        raise OptionError(f"there is no peer {name!r}; there are {', '.join(PEERS)}")
    module, kind = _WHERE[name]
    made = getattr(import_module(f".{module}", __name__), kind)
    peer: Peer = made(max_keypoints, detector_weights) if "keynet" in name else made(max_keypoints)
    return peer
