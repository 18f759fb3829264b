"""A stand-in for hloc: its packages' names, the rules by which it finds and runs models, and its files' layout.

Written from hloc's documented behaviour for tests of `register()` where hloc itself is not installed: a model is the
one class defined in `hloc.extractors.NAME` that derives from `BaseModel`; it gets its conf through `_init` and a batch
of one through `_forward`; keypoints and `scales` come back in the resized image's pixels and are brought to the
original's; float32 is stored in half precision where asked; matches are 16-bit.
"""

from __future__ import annotations

from pathlib import Path

SOURCES = {
    "__init__.py": "",
    "extractors/__init__.py": "",
    "matchers/__init__.py": "",
    "utils/__init__.py": "",
    "utils/base_model.py": """
import abc, importlib, inspect
from torch import nn

class BaseModel(nn.Module, abc.ABC):
    default_conf: dict = {}
    required_inputs: list = []

    def __init__(self, conf):
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self.required_inputs = list(self.required_inputs)
        self._init(self.conf)

    def forward(self, data):
        missing = set(self.required_inputs) - set(data)
        assert not missing, missing
        return self._forward(data)

    @abc.abstractmethod
    def _init(self, conf): ...

    @abc.abstractmethod
    def _forward(self, data): ...

def dynamic_load(root, model):
    place = f"{root.__name__}.{model}"
    module = importlib.import_module(place)
    own = [
        kind for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == place and issubclass(kind, BaseModel)
    ]
    assert len(own) == 1, own
    return own[0]
""",
    "extract_features.py": """
import cv2, h5py, numpy as np, torch
from . import extractors
from .utils.base_model import dynamic_load

confs = {"theirs": {"output": "feats-theirs", "model": {"name": "theirs"}, "preprocessing": {}}}

@torch.no_grad()
def main(conf, image_dir, export_dir, as_half=True):
    path = export_dir / f"{conf['output']}.h5"
    model = dynamic_load(extractors, conf["model"]["name"])(conf["model"]).eval()
    for file in sorted(image_dir.iterdir()):
        image = cv2.imread(str(file), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)[:, :, ::-1].astype(np.float32)
        original = np.array(image.shape[1::-1])
        largest = conf["preprocessing"].get("resize_max")
        if largest and original.max() > largest:
            small = tuple(int(round(side * largest / original.max())) for side in original)
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))[None] / 255)
        found = {key: value[0].numpy() for key, value in model({"image": tensor}).items()}
        factor = (original / np.array(image.shape[1::-1])).astype(np.float32)
        found["keypoints"] = (found["keypoints"] + 0.5) * factor - 0.5
        if "scales" in found:
            found["scales"] = found["scales"] * factor.mean()
        found["image_size"] = original
        with h5py.File(path, "a") as h5:
            for key, value in found.items():
                halved = as_half and value.dtype == np.float32
                h5[f"{file.name}/{key}"] = value.astype(np.float16) if halved else value
            h5[f"{file.name}/keypoints"].attrs["uncertainty"] = model.detection_noise * factor.mean()
    return path
""",
    "match_features.py": """
import h5py, torch
from . import matchers
from .utils.base_model import dynamic_load

confs = {"theirs": {"output": "matches-theirs", "model": {"name": "theirs"}}}

@torch.no_grad()
def main(conf, pairs, features, matches):
    model = dynamic_load(matchers, conf["model"]["name"])(conf["model"]).eval()
    with h5py.File(features) as read, h5py.File(matches, "a") as write:
        for line in pairs.read_text().splitlines():
            names, data = line.split(), {}
            for index, name in enumerate(names):
                for key, value in read[name].items():
                    data[f"{key}{index}"] = torch.from_numpy(value[()]).float()[None]
                data[f"image{index}"] = torch.empty((1, 1, *read[name]["image_size"][()][::-1].tolist()))
            found = model(data)
            group = write.create_group("/".join(name.replace("/", "-") for name in names))
            group["matches0"] = found["matches0"][0].short().numpy()
            group["matching_scores0"] = found["matching_scores0"][0].half().numpy()
    return matches
""",
}


def install(site: Path) -> None:
    """Put the stand-in into a folder of sys.path."""
    for name, source in SOURCES.items():
        path = site / "hloc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
