"""COLMAP's SIFT through pycolmap: as it is by default, and with affine shape and domain-size pooling."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...features import Features
from ...frames import from_colmap, laf_scale
from .base import Peer


class ColmapSift(Peer):
    """SIFT (root of L1-normalised) on the processor, COLMAP's defaults (Schönberger and Frahm, CVPR 2016).

    COLMAP counts places, of which each may have two orientations, and prefers large scales; so of more rows than
    asked for, those of the largest scales stay.
    """

    name, about = "colmap-sift", "pycolmap's SIFT with COLMAP's defaults (of too many, the largest scales)"
    options: ClassVar[dict[str, Any]] = {}

    def extract(self, image: NDArray[np.uint8]) -> Features:
        import cv2

        from ...sfm.colmap import pycolmap, quietly

        asked = pycolmap.FeatureExtractionOptions()
        asked.use_gpu, asked.num_threads, asked.max_image_size = False, 1, -1
        asked.sift.max_num_features = self.max_keypoints
        for name, value in self.options.items():
            setattr(asked.sift, name, value)
        # Only a database hands keypoints out in one piece with their shapes.
        with tempfile.TemporaryDirectory() as folder, quietly():
            path = Path(folder, "database.db")
            cv2.imwrite(str(Path(folder, "image.png")), image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
            pycolmap.Database.open(path).close()
            pycolmap.extract_features(path, folder, ["image.png"], extraction_options=asked)
            with pycolmap.Database.open(path) as database:
                [stored] = database.read_all_images()
                lafs = from_colmap(np.asarray(database.read_keypoints(stored.image_id)))
                rows = np.asarray(database.read_descriptors(stored.image_id).data, dtype=np.uint8).reshape(-1, 128)
        scale = laf_scale(lafs)
        kept = np.argsort(-scale, kind="stable")[: self.max_keypoints]
        return Features(lafs[kept], scale[kept], rows[kept], (image.shape[1], image.shape[0]))


class ColmapSiftAffine(ColmapSift):
    """The same with estimated affine shape and domain-size pooling (Dong and Soatto, CVPR 2015)."""

    name, about = "colmap-sift-affine-dsp", "pycolmap's SIFT, affine shape and domain-size pooling"
    options: ClassVar[dict[str, Any]] = {"estimate_affine_shape": True, "domain_size_pooling": True}
