"""Bytes to pixels, with the check that the picture is whole.

JPEG goes through OpenCV, twice as fast as Pillow (12 Mpix: 73 against 157 ms) and the same to the bit; but OpenCV fills
what is missing of a cut-off JPEG with grey and says so on stderr only, so its markers are walked first. All else goes
through Pillow, whose decoders refuse a cut-off file.
"""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError

MAX_PIXELS = 2**28  # 268 Mpix: larger than any camera's, small enough for memory
GREY = (0.2126, 0.7152, 0.0722)
CUT_OFF = "the file is cut off; copy it again from its source"
_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # a plain first byte: 20 times faster than \xff+
_STANDALONE = {0x01, *range(0xD0, 0xD9)}
_STRIP = 1 << 20  # pixels converted at once
_FRAMES = {0xC0, 0xC1, 0xC2}  # what libjpeg decodes in 8 bits: baseline, extended, progressive


def decode(data: bytes, name: str, color: bool, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Pixels of a whole image file: (H, W) grey or, with `color`, (H, W, 3) RGB, uint8.

    Raises:
        ImageError: not an image, cut off, of an unsupported kind, or of more than `max_pixels` pixels.
    """
    if data.startswith(b"\xff\xd8\xff"):
        width, height, channels = check_jpeg(data, name)
        check_size(width, height, name, max_pixels)
        if channels in (1, 3):
            return _decode_jpeg(data, name, color, channels)
    return _decode_with_pillow(data, name, color, max_pixels)


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name}: the header says {width}x{height} pixels; the file is damaged")
    if width * height > max_pixels:
        raise ImageError(
            f"{name}: the header says {width}x{height} pixels, more than the limit of {max_pixels / 1e6:.0f} million; "
            "the file is damaged or a decompression bomb. If it is a real picture, cut it into tiles or shrink it"
        )


def check_jpeg(data: bytes, name: str) -> tuple[int, int, int]:
    """Walk the markers to the end of the image; (width, height, channels).

    Raises:
        ImageError: it ends before its end-of-image marker, or has no frame or scan.
    """
    position, frame, scanned = 2, None, False
    while True:
        found = _MARKER.search(data, position)  # over fill bytes and what decoders skip
        if found is None:
            raise ImageError(f"{name}: JPEG data ends after {len(data)} bytes without its end marker: {CUT_OFF}")
        marker, position = data[found.end() - 1], found.end()
        if marker == 0xD9:
            if frame is None or not scanned:
                raise ImageError(f"{name}: a JPEG file without a picture in it; copy it again from its source")
            return frame
        if marker in _STANDALONE:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2 or position + length > len(data):
            raise ImageError(f"{name}: JPEG header data ends after {len(data)} bytes: {CUT_OFF}")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            segment = data[position + 2 : position + length]
            if marker not in _FRAMES or len(segment) < 6 or segment[0] != 8:
                raise ImageError(
                    f"{name}: a kind of JPEG (frame type {marker & 15}, {segment[0] if segment else 0} bits) that is "
                    "not supported; convert it to an 8-bit baseline JPEG or to PNG"
                )
            frame = (int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[1:3], "big"), segment[5])
        position += length
        if marker == 0xDA:
            scanned = True
            found = _MARKER.search(data, position)  # past the compressed data; restart markers belong to it
            position = found.start() if found else len(data)


def _decode_jpeg(data: bytes, name: str, color: bool, channels: int) -> NDArray[np.uint8]:
    import cv2

    flags = cv2.IMREAD_IGNORE_ORIENTATION | (cv2.IMREAD_COLOR if color or channels == 3 else cv2.IMREAD_GRAYSCALE)
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ImageError(f"{name}: the JPEG decoder fails: {error}") from error
    if pixels is None:
        raise ImageError(f"{name}: the JPEG decoder cannot read it; the file is damaged")
    if pixels.ndim == 2:
        return np.asarray(pixels, np.uint8)
    if color:
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
    return np.asarray(cv2.transform(pixels, np.float32([GREY[::-1]])), np.uint8)  # type: ignore[arg-type]


def _decode_with_pillow(data: bytes, name: str, color: bool, max_pixels: int) -> NDArray[np.uint8]:
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(io.BytesIO(data))
        check_size(*image.size, name, max_pixels)
        image.load()
        return _to_8_bits(_samples(image, data), color)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image file ({_looks_like(data)})") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: {error}. If it is a real picture, cut it into tiles or shrink it") from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory to decode it; shrink it") from error
    except Exception as error:  # decoders raise anything on damaged data; the reason goes into the message
        what = str(error) or type(error).__name__
        reason = CUT_OFF if "truncated" in what.lower() else f"damaged or of an unsupported kind ({what})"
        raise ImageError(f"{name}: {reason}") from error


def _samples(image: Any, data: bytes) -> NDArray[Any]:
    """A loaded Pillow image as an array of its own depth: (H, W) or (H, W, 3) uint8, uint16 or float."""
    if image.mode == "F":
        return np.asarray(image)
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":
        raise ValueError("32-bit integer samples have no agreed range: convert it to 16 bits")
    if _deep_color(image, data):  # Pillow would keep the upper 8 of 16 bits
        import cv2

        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is not None and pixels.dtype == np.uint16 and pixels.shape[:2] == image.size[::-1]:
            return np.ascontiguousarray(pixels[:, :, 2::-1])
    if image.mode in ("L", "1", "LA", "La"):
        return np.asarray(image.convert("L") if image.mode == "1" else image.getchannel(0))
    return np.asarray(image.convert("RGB"))


def _deep_color(image: Any, data: bytes) -> bool:
    """Whether a picture of several channels has 16 bits in each."""
    if image.format == "PNG":
        return len(data) > 25 and data[24] == 16 and data[25] in (2, 4, 6)
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (8,))
        return isinstance(bits, tuple) and len(bits) > 1 and set(bits) == {16}
    return False


def _to_8_bits(samples: NDArray[Any], color: bool) -> NDArray[np.uint8]:
    """To uint8, rounded, and to the channels asked for; grey after rounding, as COLMAP has it.

    In strips of rows: what is made on the way is several times as large as the picture.
    """
    rows, columns = samples.shape[:2]
    if samples.dtype == np.uint8 and samples.ndim == (3 if color else 2):
        return np.ascontiguousarray(samples)
    out = np.empty((rows, columns, 3) if color else (rows, columns), np.uint8)
    strip = max(1, _STRIP // max(1, columns))
    for start in range(0, rows, strip):
        out[start : start + strip] = _strip_to_8_bits(samples[start : start + strip], color)
    return out


def _strip_to_8_bits(samples: NDArray[Any], color: bool) -> NDArray[np.uint8]:
    if samples.dtype == np.uint16:
        samples = ((samples.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    elif samples.dtype != np.uint8:
        if not np.isfinite(samples).all():
            raise ValueError("float samples hold NaN or infinity")
        samples = np.clip(np.round(samples * 255.0), 0, 255).astype(np.uint8)
    if color and samples.ndim == 2:
        samples = np.repeat(samples[:, :, None], 3, axis=2)
    elif not color and samples.ndim == 3:
        samples = np.round(samples @ np.array(GREY, np.float32)).astype(np.uint8)
    return samples


def _looks_like(data: bytes) -> str:
    """A guess at what a file that is no image may be, for the message."""
    head = data[:512].lstrip()
    if data[4:8] == b"ftyp":
        return "it looks like HEIC, AVIF or video; convert it to JPEG or PNG"
    if head[:1] == b"<":
        return "it looks like a web page or XML, perhaps a failed download"
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer; run `git lfs pull`"
    try:
        data[:512].decode()
        return "it looks like text"
    except UnicodeDecodeError:
        return "its first bytes are " + data[:4].hex(" ") + "; the file is damaged or of an unsupported format"
