"""The official weights by name: where they come from, how they are recognised, their licence, what to cite."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ..errors import HardnetMatchError, WeightsError

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Entry:
    """One weights file.

    Args:
        name: what a user types. architecture: the network it fits.
        urls: tried in turn; empty for the package's own. file: its name in the cache (or in the package).
        sha256, git_blob: the file's hash, by either method; both None where nobody has published one: then the first
            download over TLS is trusted, its hash is kept beside it, and a file that differs later is refused.
        licence: as its source states it. citation: the paper.
    """

    name: str
    architecture: str
    urls: tuple[str, ...]
    file: str
    licence: str
    citation: str
    about: str
    sha256: str | None = None
    git_blob: str | None = None

    # the rest of what `download.Remote` asks for
    what: ClassVar[str] = "weights"
    md5: ClassVar[str | None] = None
    most_bytes: ClassVar[int | None] = None
    seconds: ClassVar[float | None] = None
    way_out: ClassVar[str] = "or pass a file's path instead of the name. The bundled weights need no download"
    error: ClassVar[type[HardnetMatchError]] = WeightsError

    @property
    def bundled(self) -> bool:
        return not self.urls


_HARDNET = "Mishchuk et al.: Working hard to know your neighbor's margins: Local descriptor learning loss, NIPS 2017"
_PHOTOSYNTH = "Mitra et al.: A Large Dataset for Improving Patch Matching, arXiv 1801.01466, 2018"
_HARDNET8 = "Pultar: Improving the HardNet Descriptor, arXiv 2007.09699, 2020"
_AFFNET = "Mishkin et al.: Repeatability Is Not Enough: Learning Affine Regions via Discriminability, ECCV 2018"
_KEYNET = "Barroso-Laguna et al.: Key.Net: Keypoint Detection by Handcrafted and Learned CNN Filters, ICCV 2019"
_TFEAT = "Balntas et al.: Learning local feature descriptors with triplets and shallow networks, BMVC 2016"


def _github(repository: str, branch: str, path: str) -> tuple[str, str]:
    path = path.replace("+", "%2B")
    return (
        f"https://raw.githubusercontent.com/{repository}/{branch}/{path}",
        f"https://github.com/{repository}/raw/{branch}/{path}",
    )


def _kornia(repository: str, file: str) -> str:
    return f"https://huggingface.co/kornia/{repository}/resolve/main/{file}"


def _hardnet(name: str, path: str, about: str, git_blob: str | None, **more: str) -> Entry:
    urls = _github("DagnyT/hardnet", "master", f"pretrained/{path}")
    if "mirror" in more:
        urls = (*urls, _kornia("hardnet", more.pop("mirror")))  # type: ignore[assignment]
    file = path.rsplit("/", 1)[-1]
    return Entry(name, "hardnet", urls, file, "MIT", _HARDNET, about, git_blob=git_blob, **more)


def _tfeat(part: str, sha256: str | None) -> Entry:
    file = f"tfeat-{part}.params"
    urls = (*_github("vbalnt/tfeat", "master", f"pretrained-models/{file}"), _kornia("tfeat", file))
    return Entry(f"tfeat-{part}", "tfeat", urls, file, "MIT", _TFEAT, f"trained on Brown's {part}", sha256)


def _bundled(architecture: str, citation: str) -> Entry:
    name = f"{architecture}-bundled"
    about = "the package's own, trained by scripts/train_bundled.py; see its card"
    return Entry(name, architecture, (), f"{name}.safetensors", "Apache-2.0", citation, about)


_AUG = "with augmentation"
_ENTRIES = (
    _bundled("hardnet", _HARDNET),
    _bundled("affnet", _AFFNET),
    _bundled("orinet", _AFFNET),
    _hardnet(
        "hardnet++", "pretrained_all_datasets/HardNet++.pth", "all of Brown and HPatches; what its authors recommend",
        "84aa9c230b7cd6d0a8a7d13b65b39cfb0f406eec", mirror="HardNetPP.pth",
    ),
    _hardnet(
        "hardnet-liberty", "train_liberty/checkpoint_liberty_no_aug.pth", "Brown's liberty",
        "8694b2a670aec840800966e42cd8c79e3be66e9a",
    ),
    _hardnet(
        "hardnet-liberty-aug", "train_liberty_with_aug/checkpoint_liberty_with_aug.pth",
        f"Brown's liberty {_AUG}; for fair comparisons", "c1b2a5f4e79a5f3e50ec9a1ac98a428965cef37b",
        mirror="checkpoint_liberty_with_aug.pth",
    ),
    _hardnet("hardnet-notredame", "train_notredame/checkpoint_notredame_no_aug.pth", "Brown's notredame", None),
    _hardnet(
        "hardnet-notredame-aug", "train_notredame_with_aug/checkpoint_notredame_with_aug.pth",
        f"Brown's notredame {_AUG}", "e3d10581066a9408db8c9a6b545e08318bdead2c",
    ),
    _hardnet("hardnet-yosemite", "train_yosemite/checkpoint_yosemite_no_aug.pth", "Brown's yosemite", None),
    _hardnet(
        "hardnet-yosemite-aug", "train_yosemite_with_aug/checkpoint_yosemite_with_aug.pth",
        f"Brown's yosemite {_AUG}", "ec9124d045fa7c05cefa76a7ae48a016754aae85",
    ),
    _hardnet(
        "hardnet-6brown", "6Brown/hardnetBr6.pth", "all six of Brown's sets", "26df901859b3bbfc0cafaca504f09e771ac7b427"
    ),
    Entry(
        "hardnet-ps", "hardnet-ps", _github("DagnyT/hardnet", "master", "pretrained/3rd_party/HardNetPS/HardNetPS.pth"),
        "HardNetPS.pth", "MIT (repository's)", _PHOTOSYNTH, "PhotoSynth; the best not trained on HPatches",
        git_blob="2d5b2988f18d6bd9523c69907ee4cbf07e060ab0",
    ),
    Entry(
        "hardnet8", "hardnet8", (_kornia("hardnet", "hardnet8v2.pt"), "https://cmp.felk.cvut.cz/~mishkdmy/hardnet8v2.pt"),
        "hardnet8v2.pt", "MIT (repository's)", _HARDNET8, "Brown and Phototourism, 512 channels, PCA to 128",
    ),
    Entry(
        "hardtfeat", "hardtfeat", _github("ducha-aiki/affnet", "master", "HardTFeat.pth"), "HardTFeat.pth", "MIT",
        _HARDNET, "TFeat's layers trained with HardNet's loss",
        "cd935728293309b666c20525696c8d323be5ffdac07b3340f4c1c1314e0b6542",
    ),
    Entry(
        "affnet", "affnet",
        (*_github("ducha-aiki/affnet", "master", "pretrained/AffNet.pth"), _kornia("affnet", "AffNet.pth")),
        "AffNet.pth", "MIT", _AFFNET, "all six of Brown's sets",
        "65c8bb2cf71e913818522d09dcc4262bcbcef5d756baa86a41f28526c2d61160",
    ),
    Entry(
        "orinet", "orinet",
        (*_github("ducha-aiki/affnet", "master", "pretrained/OriNet.pth"), _kornia("orinet", "OriNet.pth")),
        "OriNet.pth", "MIT", _AFFNET, "all six of Brown's sets",
        "030e7964ae3e136d00431c7e11c6b67df40ad299f02ac384fee0f1c3fd1dcb30",
    ),
    Entry(
        "keynet", "keynet",
        (
            *_github("axelBarroso/Key.Net-Pytorch", "main", "model/weights/keynet_pytorch.pth"),
            _kornia("keynet", "keynet_pytorch.pth"),
        ),
        "keynet_pytorch.pth", "MIT", _KEYNET, "warped ImageNet",
        "59d3a46d57b439513acf531877fdfaa95eb550ccd10ec462e23d7c1f7a86d52a",
    ),
    _tfeat("liberty", "1f2e9516b03c45876161da006ce8047e0a66ef08cc91d3fbf96a75f1a80f445a"),
    _tfeat("notredame", None),
    _tfeat("yosemite", None),
)  # fmt: skip
ENTRIES = {entry.name: entry for entry in _ENTRIES}


def find(name: str) -> Entry:
    """The entry of that name.

    Raises:
        WeightsError: there is none; tells the nearest names.
    """
    if name in ENTRIES:
        return ENTRIES[name]
    near = difflib.get_close_matches(name, ENTRIES, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known names: {', '.join(ENTRIES)}"
    raise WeightsError(f"no weights named {name!r}, and no such file; {hint}")
