"""The classes of a patch set, and how some of them are chosen for a batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, OptionError
from ..patchset import PatchSet


class Classes:
    """Where the observations of every label lie in a set, by scene and by image.

    Labels are counted 0, 1, ... here, in the order of the set; `starts` (L,) and `counts` (L,) give their rows.

    Raises:
        DataError: the set is empty.
    """

    def __init__(self, observations: PatchSet) -> None:
        if not len(observations):
            raise DataError(f"the patch set{_named(observations)} is empty: there is nothing to draw from")
        self.set = observations
        self.starts: NDArray[np.intp] = np.flatnonzero(np.r_[True, np.diff(observations.track) > 0])
        self.counts: NDArray[np.intp] = np.diff(np.r_[self.starts, len(observations)])
        scene = observations.scene[self.starts]
        self.by_scene: NDArray[np.intp] = np.argsort(scene, kind="stable")
        """(L,) labels, scene after scene."""
        edges = np.flatnonzero(np.r_[True, np.diff(scene[self.by_scene]) > 0, True])
        self.scene_start, self.scene_size = edges[:-1], np.diff(edges)
        weights = np.sqrt(self.scene_size)
        self.weights: NDArray[np.float64] = weights / weights.sum()

    def __len__(self) -> int:
        return len(self.starts)

    def check(self, count: int) -> None:
        """Raise DataError where a batch of `count` different labels is more than there is."""
        if count < 1:
            raise OptionError(f"a batch needs at least one label, got {count}")
        if count > len(self):
            raise DataError(
                f"the patch set{_named(self.set)} has {len(self)} labels, too few for a batch of {count}: "
                "take a smaller batch or more data"
            )

    def choose(self, count: int, rng: np.random.Generator, focus: float) -> NDArray[np.intp]:
        """(count,) different labels.

        A share `focus` of them is of one scene, where negatives are hardest; the rest of all scenes, a scene being
        drawn in proportion to the square root of its labels, so that large scenes do not drown small ones.
        """
        self.check(count)
        scene = rng.choice(len(self.weights), p=self.weights)
        near = min(round(count * focus), int(self.scene_size[scene]))
        chosen = [self.by_scene[self.scene_start[scene] + rng.choice(self.scene_size[scene], near, replace=False)]]
        scenes = rng.choice(len(self.weights), 2 * count, p=self.weights)
        within = (rng.random(2 * count) * self.scene_size[scenes]).astype(np.intp)
        chosen.append(self.by_scene[self.scene_start[scenes] + within])
        found = in_order_of_arrival(np.concatenate(chosen))[:count]
        if len(found) < count:  # a batch that takes nearly all there is
            left = np.setdiff1d(np.arange(len(self)), found)
            found = np.concatenate([found, rng.choice(left, count - len(found), replace=False)])
        return found

    def choose_from_few_images(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """(count,) different labels out of as few images as it takes, images being drawn at random.

        Descriptors then have to tell apart what one photo shows, which is what matching two photos asks of them.
        """
        self.check(count)
        image, label = self._labels_of_images()
        starts = np.flatnonzero(np.r_[True, np.diff(image) > 0])
        sizes = np.diff(np.r_[starts, len(image)])
        order = rng.permutation(len(starts))
        taken, found = 0, np.zeros(0, dtype=np.intp)
        while len(found) < count:
            # enough images for what is missing, if no label came twice
            enough = int(np.searchsorted(np.cumsum(sizes[order[taken:]]), count - len(found))) + 1
            new = order[taken : taken + enough]
            rows = np.repeat(starts[new] - np.r_[0, np.cumsum(sizes[new])[:-1]], sizes[new]) + np.arange(
                sizes[new].sum()
            )
            # within the last image every label has the same chance
            shuffled = rows[np.lexsort((rng.random(len(rows)), np.repeat(np.arange(len(new)), sizes[new])))]
            found = in_order_of_arrival(np.concatenate([found, label[shuffled]]))
            taken += enough
        return found[:count]

    def _labels_of_images(self) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
        """Every (image, label) that occurs, once, sorted by image."""
        if not hasattr(self, "_pairs"):
            label = np.repeat(np.arange(len(self)), self.counts)
            # numbers of images may begin anew in every scene
            images = self.set.image.astype(np.int64)
            span = int(images.max()) + 1
            key = (self.set.scene.astype(np.int64) * span + images) * len(self) + label
            key = np.unique(key)
            self._pairs = key // len(self), (key % len(self)).astype(np.intp)
        return self._pairs


def in_order_of_arrival(values: NDArray[np.intp]) -> NDArray[np.intp]:
    """Every value once, where it came first."""
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]


def _named(observations: PatchSet) -> str:
    return f" {observations.name}" if observations.name else ""
