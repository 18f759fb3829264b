"""Batches out of patch sets: which labels, which patches of each, and from which of several sets."""

from .batch import Batch, Place, Sampler, TensorBatch
from .mixed import MixedSampler
from .pairs import PairSampler, TupleSampler
from .prefetch import batches

__all__ = ["Batch", "MixedSampler", "PairSampler", "Place", "Sampler", "TensorBatch", "TupleSampler", "batches"]
