"""Measure our presets and their peers side by side, and write docs/results.md from it.

    python scripts/results.py DATA --work DIR [--tables pairs poses models] [--keynet FILE] [--opencv4 DIR]

DATA holds `pairs/`, planar sequences a folder each, and `scenes/`, photos a folder each. Every table is one command of
`hardnet-match eval`, run as the page prints it. Features and figures are kept in DIR, so it may be stopped and made in
parts: what is there is used again, and after new weights only what carries them is done anew. `--page-only` writes the
page from the tables measured so far.

--keynet: Key.Net's weights; without them what needs them is left out. --opencv4: a folder that
`pip install --target DIR "opencv-python-headless<5"` made, for AKAZE, which OpenCV 5 has not; left out without it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRESETS = ["hesaffnet-hardnet", "dog-affnet-hardnet", "dog-hardnet", "hesaffnet-rootsift", "keynet-affnet-hardnet"]
PEERS = ["sift", "rootsift", "akaze", "orb", "colmap-sift", "colmap-sift-affine-dsp", "kornia-hesaffnet-hardnet"]
PEERS += ["kornia-dogaffnet-hardnet", "kornia-keynetaffnet-hardnet"]
SCENES = {
    "lund_door": "Lund door: 12 photos, cameras from COLMAP by the data set's authors",
    "saharov": "Saharov: 32 photos, cameras of a Bundler file",
    "sceaux_castle": "Sceaux castle: 11 photos, no known cameras",
    "sacre_coeur": "Sacre Coeur: 10 tourists' photos, no known cameras",
    "et": "ET: 9 small photos, no known cameras",
}
KNOWN = ("lund_door", "saharov")
SMALL = ["--keypoints", "2048", "--max-size", "1024"]


@dataclass(frozen=True)
class Table:
    """One command: its kind, heading, folder in DATA, and options besides who takes part."""

    kind: str
    name: str
    title: str
    verb: str
    folder: str
    options: list[str] = field(default_factory=list)


TABLES = [
    Table("pairs", "pairs-90", "Planar pairs, ratio .9", "homography", "pairs", ["--keypoints", "2048"]),
    Table(
        "pairs", "pairs-80", "Planar pairs, ratio .8", "homography", "pairs", ["--keypoints", "2048", "--ratio", "0.8"]
    ),
    Table(
        "pairs",
        "pairs-mnn",
        "Planar pairs, no ratio",
        "homography",
        "pairs",
        ["--keypoints", "2048", "--method", "mnn"],
    ),
    *(Table("poses", f"pose-{name}", SCENES[name], "pose", f"scenes/{name}", SMALL) for name in KNOWN),
    *(
        Table("models", f"sfm-{name}", title, "sfm", f"scenes/{name}", [*SMALL, "--repeats", "5"])
        for name, title in SCENES.items()
    ),
]


def taking_part(arguments: argparse.Namespace) -> tuple[list[str], list[str]]:
    """Names of presets and peers that can be measured with what is given."""
    presets = [name for name in arguments.presets if arguments.keynet or "keynet" not in name]
    peers = [name for name in arguments.peers if arguments.keynet or "keynet" not in name]
    return presets, [name for name in peers if arguments.opencv4 or name != "akaze"]


def command(table: Table, presets: list[str], peers: list[str], keynet: str | None) -> list[str]:
    """The words after `hardnet-match`, as the page prints them."""
    words = ["eval", table.verb, table.folder, "--preset", ",".join(presets) or "none"]
    words += ["--peers", ",".join(peers)] if peers else []
    words += ["--detector-weights", keynet] if keynet else []
    return [*words, *table.options]


def measure(table: Table, arguments: argparse.Namespace) -> None:
    """Run a table's command in DATA; its Markdown and the command go to the work folder."""
    presets, peers = taking_part(arguments)
    keynet = str(arguments.keynet.resolve()) if arguments.keynet else None
    work = arguments.work.resolve()
    place = work / table.folder.replace("/", "-")
    run = [sys.executable, "-m", "hardnet_match"]
    extra = ["--work", str(place), "--quiet"]
    paths = [str(ROOT), *([os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else [])]
    if "akaze" in peers:  # its features go on file with OpenCV 4, and are read there afterwards
        with_4 = {**os.environ, "PYTHONPATH": os.pathsep.join([str(arguments.opencv4.resolve()), *paths])}
        alone = [*run, *command(table, [], ["akaze"], None), *extra]
        subprocess.run(alone, cwd=arguments.data, env=with_4, check=True, stdout=subprocess.DEVNULL)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    words = command(table, presets, peers, keynet)
    print(shlex.join(["hardnet-match", *words]), file=sys.stderr, flush=True)
    subprocess.run(
        [*run, *words, *extra, "--markdown", str(work / f"{table.name}.md")],
        cwd=arguments.data, env=env, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    shown = command(table, presets, peers, "keynet_pytorch.pth" if keynet else None)
    (work / f"{table.name}.txt").write_text(shlex.join(["hardnet-match", *shown]) + "\n", encoding="utf-8")


def losses(markdown: str) -> list[str]:
    """Figures of a table in which a peer is ahead of the first of our presets in it: one line each."""
    lines = [
        [cell.strip(" *") for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"
    ]
    told = [line for line in markdown.splitlines() if "**" in line]
    rows = {row[0]: row[1:] for row in lines[2:]}
    ours = next((row for label, row in rows.items() if label in PRESETS), None)
    peers = {label: row for label, row in rows.items() if label not in PRESETS}
    if ours is None or not peers:
        return []
    found = []
    for k, column in enumerate(lines[0][1:]):
        if not any(line.split("|")[k + 2].strip().startswith("**") for line in told):
            continue  # neither more nor less is better, or all are equal
        sign = -1 if column.endswith(("px", "°", "models")) or column.startswith("position") else 1

        def value(row: list[str], k: int = k, sign: int = sign) -> float:
            return float("-inf") if row[k] == "-" else sign * float(row[k].replace(",", ""))

        best = max(peers, key=lambda label: value(peers[label]))
        if value(peers[best]) > value(ours):
            found.append(f"{column}: {best} {peers[best][k]}, ours {ours[k]}")
    return found


INTRODUCTION = """# Results: our presets and their peers, side by side

Every table is one command, printed above it; same photos, same size, as many keypoints at most, one matcher (mutual
nearest neighbours with the ratio test both ways; binary descriptors by Hamming distance). The best of a column is bold,
whoever has it. Measured on a machine of two processor cores, without a GPU, with the package's own weights; figures of
accuracy do not depend on it. Speed is not measured here, see the [README](../README.md#how-good-how-fast).

All of it is made again, table by table, by

```text
{again}
```

Features are kept, so that after new weights only what carries them is extracted anew. The photos are not part of the
package: *pairs* are the sequences graf and boat (Oxford), v_dogman (HPatches) and nine pairs of homogr, *scenes* five
small sets of photos. They are few: differences of a per cent or two between rows mean little.

**Who takes part.** Ours: the presets of the README. `sift`, `rootsift`, `akaze`, `orb`: OpenCV's (SIFT with contrast
threshold .01 and precise upscaling, AKAZE with threshold 1e-4 out of OpenCV 4, for enough keypoints). `colmap-sift`:
pycolmap's with COLMAP's defaults, `-affine-dsp` with affine shape and domain-size pooling; of too many keypoints COLMAP
keeps those of large scale. `kornia-...`: kornia's stock detectors and patches around the very same AffNet and HardNet
weights as ours. Whatever else writes hloc's HDF5 files joins with `--features LABEL=FILE`.
"""
ABOUT = {
    "pairs": """## Planar pairs

MMA@t is the mean share of matches within t pixels of the known homography; m. score (matching score) and repeatability
are at 3 pixels; AUC@t is the area under recall of the corner error of a homography from OpenCV's RANSAC (3 pixels).
All in per cent, over 24 pairs; `matches` and `correct` (within 3 pixels) are sums. The definitions and where they come
from: `hardnet_match/metrics/homography.py`. One ratio is not equally strict for every descriptor (SIFT's users take
.8), so there are tables at .9, at .8, and of mutual nearest neighbours alone, which is how papers measure MMA. The
homographies of homogr are fitted to points matched by hand, and are off by pixels themselves.
""",
    "poses": """## Relative poses

AUC@d is the area under recall of the pose error (the larger of the angles between rotations and between directions of
translation) up to d degrees, per cent, with OpenCV's MAGSAC++ and with PoseLib at 1 pixel; precision is the share of
matches within a pixel of the true epipolar lines. Pairs are those that share 30 known points or more. Only scenes whose
cameras are known from elsewhere are here; these cameras were themselves found with SIFT-like features and COLMAP or
Bundler, so errors of a tenth of a degree are within what the truth itself may be off.
""",
    "models": """## Reconstructions

COLMAP's verification and incremental mapper on exhaustive pairs. The mapper draws at random, and a scene of few photos
comes out whole or in pieces by chance: every row has five mappings of the same matches and shows the one in the middle
(by registered photos, then points), with the fewest and most points of the five beside it. Reprojection errors are
those of each one's own model: fewer, more certain points give smaller ones. Rotation and position are medians against
the known cameras after the best similarity (position in per cent of the cameras' extent), where there are known
cameras.
""",
}


def page(arguments: argparse.Namespace) -> str:
    """The page, from what has been measured."""
    parts = [INTRODUCTION.format(again="python scripts/results.py DATA --work DIR --keynet FILE --opencv4 DIR")]
    told = ""
    for table in TABLES:
        path = arguments.work / f"{table.name}.md"
        if not path.is_file():
            continue
        if table.kind != told:
            parts.append(ABOUT[table.kind])
            told = table.kind
        text = path.read_text(encoding="utf-8").strip()
        words = path.with_suffix(".txt").read_text(encoding="utf-8").strip()
        behind = losses(re.split(r"\n\n(?=[^|])", text)[0])
        parts.append(f"### {table.title}\n\n```text\n{words}\n```\n\n{text}\n")
        if behind:
            parts.append(
                "Where our default preset is behind a peer, the best one named:\n\n"
                + "\n".join(f"- {line}" for line in behind)
                + "\n"
            )
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with pairs/ and scenes/")
    parser.add_argument("--work", type=Path, required=True, help="features, figures and models are kept here")
    parser.add_argument("--tables", nargs="+", choices=list(ABOUT), default=list(ABOUT))
    parser.add_argument("--only", nargs="+", help="names of tables, as pairs-90 or sfm-et")
    parser.add_argument("--presets", nargs="*", choices=PRESETS, default=PRESETS, help="fewer of ours")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=PEERS, help="fewer of the others")
    parser.add_argument("--keynet", type=Path, help="Key.Net's weights")
    parser.add_argument("--opencv4", type=Path, help="folder with OpenCV 4, for AKAZE")
    parser.add_argument("--page-only", action="store_true", help="measure nothing")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "results.md")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        chosen = table.name in arguments.only if arguments.only else table.kind in arguments.tables
        if chosen and not arguments.page_only and (arguments.data / table.folder).is_dir():
            measure(table, arguments)
    arguments.output.write_text(page(arguments), encoding="utf-8")
    print(arguments.output)


if __name__ == "__main__":
    main()
