"""Images and masks from files: COLMAP's own reader is the oracle for pixels, focal lengths and positions."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from hardnet_match.errors import ImageError, OptionError
from hardnet_match.images import Picture, exif_focal, gps, list_images, read_image, read_mask


def _photo(width: int = 40, height: int = 48) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.integers(0, 255, (9, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def _write(path: Path, kind: str) -> None:
    """One file of each kind that is promised to be read."""
    rng, rgb = np.random.default_rng(1), _photo()
    alpha = rng.integers(0, 255, rgb.shape[:2], dtype=np.uint8)
    deep = rng.integers(0, 65535, rgb.shape, dtype=np.uint16)
    image, options = Image.fromarray(rgb), {}
    if kind in ("deep-grey", "deep-color", "deep-alpha", "twelve-bit"):
        samples = {
            "deep-grey": deep[..., 0],
            "deep-color": deep,
            "deep-alpha": np.dstack([deep, deep[..., :1]]),
            "twelve-bit": deep[..., 0] >> 4,
        }[kind]
        assert cv2.imwrite(str(path), samples)
        return
    if kind == "grey":
        image = Image.fromarray(rgb[..., 0])
    elif kind == "alpha":
        image = Image.fromarray(np.dstack([rgb, alpha]))
    elif kind == "grey-alpha":
        image = Image.fromarray(np.dstack([rgb[..., 0], alpha]), "LA")
    elif kind == "palette":
        image = image.quantize(16)
    elif kind == "palette-transparent":
        image, options = image.quantize(16), {"transparency": 3}
    elif kind == "bilevel":
        image = Image.fromarray(rgb[..., 0] > 128)
    elif kind == "cmyk":
        image = image.convert("CMYK")
    elif kind == "float":
        image = Image.fromarray(rng.random(rgb.shape[:2], dtype=np.float32))
    elif kind == "progressive":
        options = {"progressive": True}
    elif kind == "restarts":
        options = {"restart_marker_blocks": 2}
    elif kind == "frames":
        options = {"save_all": True, "append_images": [Image.fromarray(255 - rgb)]}
    elif kind == "turned":
        exif = Image.Exif()
        exif[274] = 6
        options = {"exif": exif}
    image.save(path, quality=93, **options)


KINDS = [
    *(("jpg", kind) for kind in ("color", "grey", "cmyk", "progressive", "restarts", "turned")),
    *(("png", kind) for kind in ("color", "grey", "alpha", "grey-alpha", "palette", "palette-transparent", "bilevel")),
    *(("png", kind) for kind in ("deep-grey", "deep-color", "deep-alpha", "twelve-bit", "frames")),
    *(("tif", kind) for kind in ("color", "grey", "alpha", "cmyk", "float", "deep-grey", "deep-color", "frames")),
    *(("bmp", kind) for kind in ("color", "grey")),
]


@pytest.mark.parametrize(("extension", "kind"), KINDS)
def test_pixels_are_those_of_colmaps_reader(tmp_path: Path, extension: str, kind: str) -> None:
    path = tmp_path / f"a.{extension}"
    _write(path, kind)
    for color in (False, True):
        theirs = pycolmap.Bitmap.read(path, as_rgb=color).to_array()
        picture = read_image(path, color=color)
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.flags.c_contiguous
        assert picture.size == (40, 48)
        np.testing.assert_array_equal(picture.pixels, theirs.reshape(picture.pixels.shape))


@pytest.mark.parametrize("kind", ["color", "grey", "alpha", "frames"])
def test_webp_is_read_as_pillow_reads_its_first_frame(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.webp"
    _write(path, kind)
    np.testing.assert_array_equal(read_image(path, color=True).pixels, np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (30000, 3), (2, 5000)])
@pytest.mark.parametrize("extension", ["png", "jpg", "tif", "bmp"])
def test_tiny_and_stretched_pictures_are_valid(tmp_path: Path, size: tuple[int, int], extension: str) -> None:
    path = tmp_path / f"a.{extension}"
    Image.fromarray(_photo(*size)).save(path)
    assert read_image(path).pixels.shape == size[::-1]
    small = read_image(path, max_size=100)
    assert max(small.pixels.shape) <= 100
    assert min(small.pixels.shape) >= 1
    assert small.size == size


def _bytes(extension: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_photo(200, 160)).save(file, {"jpg": "jpeg", "tif": "tiff"}.get(extension, extension), **options)
    return file.getvalue()


def _thumbnailed(data: bytes) -> bytes:
    """The JPEG with another whole JPEG inside an APP1 segment, as cameras put a thumbnail."""
    inner = b"Exif\0\0" + _bytes("jpg", quality=20)[:60000]
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(inner) + 2) + inner + data[2:]


@pytest.mark.parametrize("kind", ["jpg", "progressive", "thumbnail", "png", "tif", "tif-lzw", "webp", "bmp"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.97])
def test_cut_off_files_are_refused(tmp_path: Path, kind: str, part: float, capfd: pytest.CaptureFixture[str]) -> None:
    data = {
        "jpg": lambda: _bytes("jpg", quality=95),
        "progressive": lambda: _bytes("jpg", quality=95, progressive=True),
        "thumbnail": lambda: _thumbnailed(_bytes("jpg", quality=95)),
        "png": lambda: _bytes("png"),
        "tif": lambda: _bytes("tif"),
        "tif-lzw": lambda: _bytes("tif", compression="tiff_lzw"),
        "webp": lambda: _bytes("webp", lossless=True),
        "bmp": lambda: _bytes("bmp"),
    }[kind]()
    path = tmp_path / "photo one.jpg"
    path.write_bytes(data)
    assert read_image(path).size == (200, 160)
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ImageError, match=r"photo one\.jpg: .+"):
        read_image(path)
    assert capfd.readouterr().err == "", "nothing may be said on stderr behind the caller's back"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400))
def test_a_cut_jpeg_is_either_refused_or_whole(cut: int) -> None:
    from hardnet_match.images.decode import decode

    for options in ({}, {"progressive": True}, {"restart_marker_blocks": 4}):
        data = _bytes("jpg", quality=90, **options)
        try:
            pixels = decode(data[:-cut], "x", color=True)
        except ImageError:
            continue
        np.testing.assert_array_equal(pixels, decode(data, "x", color=True))


def test_a_trailer_behind_the_picture_is_no_damage(tmp_path: Path) -> None:
    data = _bytes("jpg")
    (tmp_path / "b.jpg").write_bytes(data + b"maker's trailer \xff\xd8" * 99)
    whole = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(read_image(tmp_path / "b.jpg", color=True).pixels, whole)


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["jpg", "png", "tif", "webp", "bmp"]), st.data())
def test_damaged_bytes_give_a_picture_or_an_image_error(extension: str, data: st.DataObject) -> None:
    from hardnet_match.images.decode import decode

    content = bytearray(_bytes(extension))
    for place in data.draw(st.lists(st.integers(0, min(len(content) - 1, 900)), min_size=1, max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    try:
        pixels = decode(bytes(content), "x", color=False, max_pixels=1_000_000)
    except ImageError as error:
        pixels, reason = None, str(error)
    assert reason.startswith("x: ") if pixels is None else (pixels.dtype, pixels.ndim) == (np.uint8, 2)


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 9999))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is not an image, really\n", "looks like text"),
        (b"<html><body>404</body></html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\x07\xfe\x00\x99" * 40, "first bytes are 07 fe 00 99"),
        (b"\xff\xd8\xff\xd9", "without a picture"),
        (b"\xff\xd8\xff\xe0", "cut off"),
        (_png_header(60000, 60000), "decompression bomb"),
        (_png_header(15000, 11000), "truncated|cut off"),
        (_png_header(0, 7), "damaged"),
        (
            _bytes("jpg").replace(b"\xff\xc0\0\x11\x08\0\xa0\0\xc8", b"\xff\xc0\0\x11\x08\xff\xff\xff\xff"),
            "65535x65535.*bomb",
        ),
        (_bytes("jpg").replace(b"\xff\xc0\0\x11\x08", b"\xff\xc3\0\x11\x08"), "frame type 3.*convert"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_files_are_refused_with_their_name_and_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x y.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"(?s)x y\.jpg: .*({reason})"):
        read_image(path)


def test_missing_unreadable_and_special_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    os.symlink("nowhere", tmp_path / "broken.jpg")
    for name, reason in (
        ("no.jpg", "no such file"),
        ("pipe.jpg", "regular"),
        ("folder.jpg", "regular"),
        ("broken.jpg", "no such"),
    ):
        with pytest.raises(ImageError, match=reason):
            read_image(tmp_path / name)
    assert list_images(tmp_path) == []
    with pytest.raises(OptionError, match="max_size"):
        read_image(tmp_path / "no.jpg", max_size=0)


def test_list_images_names_are_relative_sorted_and_end_with_loops(tmp_path: Path) -> None:
    names = ["b.JPG", "a b.png", "sub/c\nd.tiff", "sub/ünï 漢.webp", "sub/deep/x.jpeg", "y.tif", "z.bmp"]
    for name in [*names, "note.txt", ".hidden.jpg", "sub/.thumbs/t.jpg", "fake.jpg.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(_bytes("png"))
    os.symlink(tmp_path, tmp_path / "sub" / "loop")
    assert list_images(tmp_path) == sorted(names)
    for name in names:
        assert read_image(tmp_path / name).size == (200, 160)
    outside = tmp_path.parent / f"{tmp_path.name}-more"
    outside.mkdir()
    (outside / "linked.png").write_bytes(_bytes("png"))
    os.symlink(outside, tmp_path / "more")
    assert "more/linked.png" in list_images(tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        list_images(tmp_path / "none")
    with pytest.raises(ImageError, match="not a folder"):
        list_images(tmp_path / "z.bmp")


def test_a_name_that_is_not_utf8_is_refused_in_printable_words(tmp_path: Path) -> None:
    path = os.path.join(os.fsencode(tmp_path), b"bad\xff.png")
    try:
        Path(os.fsdecode(path)).write_bytes(_bytes("png"))
    except OSError:
        pytest.skip("this file system has no such names")
    (name,) = list_images(tmp_path)
    with pytest.raises(ImageError, match=r"bad\\xff\.png: .*UTF-8") as caught:
        read_image(tmp_path / name)
    str(caught.value).encode()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 130), st.integers(1, 130), st.integers(1, 140), st.sampled_from(range(1, 9)))
def test_original_coordinates_survive_shrinking_and_turning(width: int, height: int, limit: int, tag: int) -> None:
    """A corner of the working picture is the same corner of the file, and a frame goes there and back."""
    import tempfile

    exif = Image.Exif()
    exif[274] = tag
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.png")
        Image.fromarray(_photo(width, height)).save(path, exif=exif)
        picture = read_image(path, max_size=limit, apply_orientation=True)
    assert picture.size == (width, height)
    rows, cols = picture.pixels.shape
    corners = picture.to_original(np.float32([[-0.5, -0.5], [cols - 0.5, rows - 0.5], [-0.5, rows - 0.5]]))
    expected = {(x, y) for x in (-0.5, width - 0.5) for y in (-0.5, height - 0.5)}
    for corner in corners:
        assert min(np.abs(corner - e).max() for e in expected) < 1e-3
    lafs = np.float32([[[3, 1, 5], [-1, 4, 7]]])
    np.testing.assert_allclose(picture.from_original(picture.to_original(lafs)), lafs, atol=1e-3)


def test_a_whole_frame_is_mapped_with_both_scales(tmp_path: Path) -> None:
    Image.fromarray(_photo(1000, 30)).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png", max_size=70)
    assert picture.pixels.shape == (2, 70)
    sx, sy = 1000 / 70, 15.0
    frame = np.float32([[[2, 1, 10], [-1, 3, 1]]])
    expected = [[2 * sx, sx, 10.5 * sx - 0.5], [-sy, 3 * sy, 1.5 * sy - 0.5]]
    np.testing.assert_allclose(picture.to_original(frame)[0], expected, rtol=1e-6)


def test_shrinking_averages_areas_and_keeps_blobs_where_they_are(tmp_path: Path) -> None:
    pixels = np.zeros((300, 400), np.uint8)
    y, x = np.mgrid[0:300, 0:400]
    centre = (137.3, 211.8)
    pixels[:] = 250 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 9**2))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for limit in (200, 173, 90):
        picture = read_image(tmp_path / "a.png", max_size=limit)
        weight = picture.pixels.astype(float)
        rows, cols = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]]
        found = np.array([[(cols * weight).sum(), (rows * weight).sum()]]) / weight.sum()
        np.testing.assert_allclose(picture.to_original(found.astype(np.float32)), [centre], atol=0.15)


@given(
    st.tuples(st.floats(-20, 60), st.floats(-20, 60), st.floats(-20, 60), st.floats(-20, 60)),
    st.sampled_from([None, 30]),
)
def test_a_crop_is_pils_crop_and_knows_where_it_was(box: tuple[float, ...], limit: int | None) -> None:
    pixels = _photo(40, 48)[..., 0]
    whole = Picture(pixels, (40, 48), np.array([[1.0, 0, 0], [0, 1, 0]]))
    x0, y0, x1, y1 = (round(edge) for edge in box)
    inside = max(x0, 0), max(y0, 0), min(x1, 40), min(y1, 48)
    if inside[0] >= inside[2] or inside[1] >= inside[3] or box[0] >= box[2] or box[1] >= box[3]:
        with pytest.raises(OptionError, match="40x48"):
            whole.cropped(box)
        return
    part = whole.cropped(box)
    np.testing.assert_array_equal(part.pixels, np.asarray(Image.fromarray(pixels).crop(inside)))
    np.testing.assert_allclose(part.to_original(np.float32([[0, 0]])), [inside[:2]])
    if limit is not None:
        small = part.shrunk(limit)
        rows, cols = small.pixels.shape
        far = small.to_original(np.float32([[cols - 0.5, rows - 0.5]]))
        np.testing.assert_allclose(far, [[inside[2] - 0.5, inside[3] - 0.5]], atol=1e-4)


@pytest.mark.parametrize("box", [(0, 0, np.inf, 5), (np.nan, 0, 3, 3), (0, 0, 1e30, 1e30), (5, 5, 5, 9)])
def test_strange_boxes(box: tuple[float, ...]) -> None:
    whole = Picture(_photo(40, 48), (40, 48), np.array([[1.0, 0, 0], [0, 1, 0]]))
    if box[0] == box[2]:
        with pytest.raises(OptionError, match="x0 y0 x1 y1"):
            whole.cropped(box)
    else:
        assert whole.cropped(box).pixels.size


@pytest.mark.parametrize("tag", range(1, 9))
def test_orientation_is_ignored_unless_asked_for(tmp_path: Path, tag: int) -> None:
    exif = Image.Exif()
    exif[274] = tag
    Image.fromarray(_photo()).save(tmp_path / "a.png", exif=exif)
    stored = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(stored.pixels, pycolmap.Bitmap.read(tmp_path / "a.png", as_rgb=False).to_array())
    upright = read_image(tmp_path / "a.png", apply_orientation=True)
    from PIL import ImageOps

    with Image.open(tmp_path / "a.png") as image:
        turned = np.asarray(ImageOps.exif_transpose(image))
    turned_grey = np.round(turned @ np.float32([0.2126, 0.7152, 0.0722])).astype(np.uint8)
    np.testing.assert_array_equal(upright.pixels, turned_grey)
    rows, cols = np.mgrid[0 : upright.pixels.shape[0], 0 : upright.pixels.shape[1]]
    there = upright.to_original(np.column_stack([cols.ravel(), rows.ravel()]).astype(np.float32)).round().astype(int)
    np.testing.assert_array_equal(stored.pixels[there[:, 1], there[:, 0]], upright.pixels.ravel())


def test_masks_follow_colmaps_naming_and_must_fit(tmp_path: Path) -> None:
    mask = np.zeros((48, 40), np.uint8)
    mask[10:30, 5:25] = 1
    (tmp_path / "sub").mkdir()
    Image.fromarray(mask).save(tmp_path / "sub" / "a b.jpg.png")
    Image.fromarray(mask).save(tmp_path / "c.png")
    for name in ("sub/a b.jpg", "c.png"):
        found = read_mask(tmp_path, name, (40, 48))
        assert found is not None
        assert found.dtype == bool
        np.testing.assert_array_equal(found, mask > 0)
    assert read_mask(tmp_path, "sub/a b.png", (40, 48)) is None
    with pytest.raises(ImageError, match=r"a b\.jpg\.png: the mask is 40x48 pixels and its image 48x40"):
        read_mask(tmp_path, "sub/a b.jpg", (48, 40))
    (tmp_path / "d.jpg.png").write_bytes(b"oops")
    with pytest.raises(ImageError, match=r"d\.jpg\.png"):
        read_mask(tmp_path, "d.jpg", (40, 48))


def test_a_mask_is_fitted_to_the_working_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 8
    Image.fromarray(_photo(400, 300)).save(tmp_path / "a.jpg", exif=exif)
    mask = np.zeros((300, 400), bool)
    mask[100:200, 40:360] = True
    picture = read_image(tmp_path / "a.jpg", max_size=101, apply_orientation=True)
    fitted = picture.fit_mask(mask)
    assert fitted.shape == picture.pixels.shape == (101, 76)
    points = np.argwhere(fitted)[:, ::-1].astype(np.float32)
    there = picture.to_original(points).round().astype(int)
    assert mask[there[:, 1], there[:, 0]].all()
    assert fitted.mean() == pytest.approx(mask.mean(), abs=0.02)
    with pytest.raises(ImageError, match="mask is 300x400, image is 400x300"):
        picture.fit_mask(mask.T)


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.float32, (4, 2, 3), elements=st.floats(-1000, 1000, width=32)))
def test_an_unshrunk_picture_leaves_frames_alone(lafs: NDArray[np.float32]) -> None:
    picture = Picture(np.zeros((4, 4), np.uint8), (4, 4), np.array([[1.0, 0, 0], [0, 1, 0]]))
    np.testing.assert_array_equal(picture.to_original(lafs), lafs)


def test_positions_and_focal_lengths_come_out_of_written_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x8825] = {1: "S", 2: (33.0, 51.0, 25.2), 3: "E", 4: (151.0, 12.0, 36.0), 5: b"\x01", 6: 12.5}
    exif[0x8769] = {41989: 28, 37386: 4.2}
    Image.fromarray(_photo()).save(tmp_path / "a.jpg", exif=exif)
    position = gps(tmp_path / "a.jpg")
    assert position is not None
    assert position.latitude == pytest.approx(-(33 + 51 / 60 + 25.2 / 3600))
    assert position.longitude == pytest.approx(151.21)
    assert position.altitude == pytest.approx(-12.5)
    theirs = pycolmap.Bitmap.read(tmp_path / "a.jpg", as_rgb=False)
    assert exif_focal(tmp_path / "a.jpg") == pytest.approx(theirs.exif_focal_length(), rel=1e-6)
    assert position.latitude == pytest.approx(theirs.exif_latitude())
    Image.fromarray(_photo()).save(tmp_path / "b.jpg")
    assert gps(tmp_path / "b.jpg") is None
    assert exif_focal(tmp_path / "b.jpg") is None


def test_exif_of_real_photos_is_read_as_colmap_reads_it(shared: Path) -> None:
    folder = shared / "data" / "corpus" / "lund_street"
    with_position = with_focal = 0
    for name in list_images(folder):
        bitmap = pycolmap.Bitmap.read(folder / name, as_rgb=False)
        position, focal = gps(folder / name), exif_focal(folder / name)
        if position is not None:
            with_position += 1
            assert position.latitude == pytest.approx(bitmap.exif_latitude(), abs=1e-7)
            assert position.longitude == pytest.approx(bitmap.exif_longitude(), abs=1e-7)
            assert position.altitude is None or position.altitude == pytest.approx(bitmap.exif_altitude(), abs=1e-3)
        assert focal == pytest.approx(bitmap.exif_focal_length(), rel=1e-6)
        with_focal += focal is not None
    assert with_position > 20
    assert with_focal > 0


def test_real_photos_decode_as_colmap_decodes_them(shared: Path) -> None:
    scenes = shared / "data" / "scenes"
    folders = sorted(path for path in scenes.iterdir() if path.is_dir())
    assert folders
    for folder in folders:
        name = list_images(folder)[0]
        theirs = pycolmap.Bitmap.read(folder / name, as_rgb=False).to_array()
        np.testing.assert_array_equal(read_image(folder / name).pixels, theirs.reshape(theirs.shape[:2]))
