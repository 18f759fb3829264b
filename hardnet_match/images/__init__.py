"""Pictures and masks from files: whole or not at all, and in the coordinates COLMAP uses.

    picture = read_image("photos/a.jpg", max_size=1600)
    lafs = picture.to_original(lafs_found_in(picture.pixels))

What a file decodes to is what COLMAP's reader (pycolmap.Bitmap.read) makes of it, pixel for pixel: EXIF orientation is
not applied, an alpha channel is dropped, 16-bit and float samples are scaled to 8 bits by rounding, and grey is
0.2126 R + 0.7152 G + 0.0722 B (Rec. 709 weights on the stored values). WebP is the exception: pycolmap 4.2 cannot
read it.
"""

from .decode import MAX_PIXELS
from .exif import Position, exif_focal, gps
from .files import EXTENSIONS, list_images
from .picture import Picture, read_image, read_mask
from .thumbnail import read_thumbnail

__all__ = [
    "EXTENSIONS",
    "MAX_PIXELS",
    "Picture",
    "Position",
    "exif_focal",
    "gps",
    "list_images",
    "read_image",
    "read_mask",
    "read_thumbnail",
]
