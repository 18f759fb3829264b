"""Pictures of what a run did."""

from .draw import draw_matches, save_picture

__all__ = ["draw_matches", "save_picture"]
