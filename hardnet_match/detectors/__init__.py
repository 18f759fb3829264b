"""Detectors of local affine frames; one idea a file."""

from __future__ import annotations

from .dog import DoG
from .hessian import Hessian
from .scale_space import ScaleSpaceDetector

__all__ = ["DoG", "Hessian", "ScaleSpaceDetector"]
