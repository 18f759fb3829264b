"""Write the seeds that are made: `python make_seeds.py` in this folder, with the package importable.

Seeds that once broke a parser are not made here; they lie beside these and stay.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from targets import SEEDS

from hardnet_match.jobs.stages import fingerprint
from hardnet_match.retrieval.manifest import Manifest
from hardnet_match.store.journal import _COMMIT, _HEAD, _PAGE_HEAD, _checksum
from hardnet_match.training import recipe as recipes
from hardnet_match.training.checkpoint import FORMAT


def keep(name: str, label: str, data: bytes | str) -> None:
    """Write one seed of a target."""
    path = SEEDS / name / label
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def text() -> None:
    """Files of lines, numbers and words."""
    keep("pairs", "plain", "a.jpg b.jpg\n# note\n\na b.jpg\tc d.jpg\r\nb.jpg a.jpg\n")
    keep("oxford_regions", "plain", "1.0\n2\n10 20 .1 0 .1\n5 6 .02 .01 .03 9 9\n")
    keep("bundler", "plain", "# Bundle file v0.3\n2 1\n" + "500 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n" * 2)
    keep("recipe", "shipped", recipes.find("bundled-hardnet").read_bytes())
    keep("recipe_change", "plain", "schedule.batch=256")
    keep("recipe_change", "word", "data.train=['a']")
    keep("brown_info", "plain", "0 1\n0 1\n1 2\n\x000 1\n0 2\n1 1\n\x000 0 0 1 0 0\n0 0 0 2 1 0\n")
    keep("classic_ground_truth", "plain", "oxc1_a 1 2 30.5 40\x00b\nc\n\x00d\n\x00e\n")
    keep("hpatches_tasks", "plain", "h\nv_a,1,3,v_b,2,4\n\0h\nv_a,3\n")
    keep("hpatches_descriptors", "plain", "1,2,3\n4,5,6\n")
    keep("logs", "plain", "step,loss\n1,2.5\n2,\n3,1e-4\n")
    keep("text_features", "plain", "1 128\n1.5 2.5 3 0.5" + " 7" * 128 + "\n")
    keep("match_list", "plain", "a.jpg b.jpg\n0 1\n2 3\n\nb.jpg c.jpg\n4 5\n")
    keep("homography", "plain", "1 0 5\n0 1 6\n0.001 0 1\n")
    known = "".join(f"{name} PINHOLE 16 12 20 20 8 6\n" for name in ("a.jpg", "b.jpg"))
    poses = "".join(f"{name} 1 0 0 0 .1 .2 .3\n" for name in ("a.jpg", "b.jpg"))
    keep("scene_texts", "plain", f"{known}\0{poses}")
    camera, point = "500 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n", "0 0 0 9 9 9 2 0 0 1.5 2.5 1 0 3 4\n"
    keep("scene_bundler", "plain", f"# Bundle file v0.3\n2 1\n{2 * camera}{point}\0a.jpg\nb.jpg\n")
    keep("ledger", "plain", json.dumps({"settings": fingerprint(1)}) + '\n{"key": "a", "x": 2.0}\n')
    keep("shard", "plain", "3/8")
    keep("stamp", "plain", "5 1 " + 32 * "0")
    keep("stamp", "mask", "5 1 " + 32 * "0" + " -")


def records() -> None:
    """JSON, and the pickle that may be in its place."""
    truth = {"queries": [{"image": "a", "positives": ["b"], "box": [1, 2, 3, 4]}], "apart": True}
    keep("ground_truth", "json", json.dumps(truth))
    official = {"imlist": ["a"], "qimlist": ["b"], "gnd": [{"ok": [0], "bbx": [1, 2, 3, 4]}]}
    keep("ground_truth", "pickle", pickle.dumps(official, 2))
    keep("splits", "plain", json.dumps({"a": {"train": ["v_a"], "test": []}}))
    Manifest("asmk", {}, {}, "0").write(SEEDS / "manifest")
    (SEEDS / "manifest" / "manifest.json").replace(SEEDS / "manifest" / "plain")
    keep("codebook", "plain", json.dumps({"format": "x", "version": 1, "files": {}, "about": {}, "words": 1, "dim": 2}))
    keep("records", "stages", json.dumps({"map": {"fingerprint": "x", "result": [1]}}))
    keep("records", "sources", json.dumps({"features": ["a"], "images": None, "seed": 1, "size": [2, 3]}))


def archives() -> None:
    """Arrays, MATLAB files, pickles of torch in both forms, zips, and the journal of an append."""
    array = io.BytesIO()
    np.save(array, np.ones((2, 3), np.float32))
    keep("hpatches_npy", "plain", array.getvalue())
    try:
        from scipy.io import savemat
    except ImportError:
        pass
    else:
        corners = np.array([[0, 0, 1], [9, 0, 1], [0, 9, 1], [9, 9, 1]], float)
        points = {"validation": {"pts": np.hstack([corners, corners + np.array([1, 2, 0])]).T}}
        for label, packed in (("plain", False), ("packed", True)):
            content = io.BytesIO()
            savemat(content, points, do_compression=packed)
            keep("annotated_points", label, content.getvalue())
    keep("weights", "safetensors", save({"a": torch.ones(2)}, {"architecture": "hardnet"}))
    network = {"state_dict": {"a": torch.ones(2)}, "epoch": 3}
    run = {"format": FORMAT, "epoch": 3, "state_dict": {"a": torch.ones(2)}, "optimizer": {}, "step": 4}
    patches = torch.zeros(2, 32, 32, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), torch.zeros(1, 3)
    for label, zipped in (("zip", True), ("old", False)):
        for name, value in (("weights", network), ("checkpoint", network), ("dictionary", patches)):
            keep(name, label, pickled(value, zipped))
        keep("checkpoint", f"own-{label}", pickled(run, zipped))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        out.writestr("set/info.txt", "0 1\n")
        out.writestr("set/../../evil.txt", "x")
    keep("archive", "plain", content.getvalue())
    body = _PAGE_HEAD.pack(16, 4) + b"abcd"
    keep("journal", "plain", _HEAD.pack(_COMMIT, 5000, 1, _checksum(_COMMIT, 5000, 1, body)) + body)


def pickled(value: Any, zipped: bool) -> bytes:
    """What torch.save writes."""
    content = io.BytesIO()
    torch.save(value, content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


def pictures() -> None:
    """One small picture in every form, with all that is read of its EXIF."""
    pixels = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    tags = Image.Exif()
    tags[274] = 6
    tags.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 25.2), 3: "E", 4: (151.0, 12.0, 36.0), 5: b"\x01", 6: 12.5})
    tags.get_ifd(0x8769).update({41989: 28})
    for form in ("jpeg", "png", "tiff", "webp", "bmp"):
        content = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").save(content, form, **({} if form == "bmp" else {"exif": tags}))
        keep("picture", form, content.getvalue())
        keep("exif", form, content.getvalue())


def hdf5() -> None:
    """HDF5 files as the JSON they are filled from."""
    image = {"d/a.jpg/keypoints": {"shape": [3, 2]}, "d/a.jpg/descriptors": {"shape": [8, 3]}, "@settings": "{}"}
    keep("features_file", "foreign", json.dumps(image))
    own = {"@format": "hardnet-match features", "@version": 1, "d/a.jpg@complete": True, "d/a.jpg@meta": "{}"}
    more = {"d/a.jpg/lafs": {"shape": [3, 2, 3]}, "d/a.jpg/scores": {"shape": [3]}, "d/a.jpg/image_size": [4, 5]}
    keep("features_file", "own", json.dumps({**image, **more, **own}))
    keep("matches_file", "foreign", json.dumps({"a/b/matches0": [0, -1, 2], "a/b/matching_scores0": [1.0, 0.0, 0.5]}))
    rows = {"track": {"shape": [2], "dtype": "i8"}, "image": {"shape": [2], "dtype": "i4"}}
    rows["scene"] = {"shape": [2], "dtype": "i4"}
    keep("patch_set", "plain", json.dumps({"patches": {"shape": [2, 32, 32], "dtype": "u1"}, **rows, "@margin": 1.5}))


if __name__ == "__main__":
    for make in (text, records, archives, pictures, hdf5):
        make()
