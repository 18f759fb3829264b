"""Pictures and pages of what a run did."""

from .draw import draw_matches, save_picture
from .frames import draw_frames

__all__ = ["draw_frames", "draw_matches", "save_picture"]
