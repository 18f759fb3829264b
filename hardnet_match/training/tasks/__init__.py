"""What is learned: a network, and the loss of a batch of stored patches."""

from .descriptor import DescriptorTask
from .moment import Moment, Task
from .orientation import OrientationTask
from .shape import ShapeTask

__all__ = ["DescriptorTask", "Moment", "OrientationTask", "ShapeTask", "Task"]
