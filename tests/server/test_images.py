"""Pictures from strangers: what is decoded, how it is fitted, and what is refused."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from server.errors import InvalidArgument
from server.images import ImageLimits, decode_image
from server.models.repository import ImageInput

SQUARE = ImageInput("input", height=32, width=32, resize=32)


def encoded(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:  # noqa: A002
    buffer = io.BytesIO()
    picture.save(buffer, format, **options)
    return buffer.getvalue()


def quarters(width: int = 64, height: int = 64) -> Image.Image:
    """Red, green / blue, white: every turn and flip of it is different."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = (255, 0, 0)
    pixels[: height // 2, width // 2 :] = (0, 255, 0)
    pixels[height // 2 :, : width // 2] = (0, 0, 255)
    pixels[height // 2 :, width // 2 :] = (255, 255, 255)
    return Image.fromarray(pixels)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    return [tuple(int(v) for v in pixels[y, x]) for y in (4, -5) for x in (4, -5)]


RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def test_a_picture_fills_the_input_as_rgb_bytes() -> None:
    pixels = decode_image(encoded(quarters()), SQUARE)
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((32, 32, 3), np.uint8, True)
    assert corners(pixels) == [RED, GREEN, BLUE, WHITE]


def test_an_exact_fit_is_not_resampled() -> None:
    original = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(encoded(Image.fromarray(original)), SQUARE), original)


def test_scaling_and_cropping_agree_with_doing_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).resize((600, 400))
    scaled = noise.resize((60, 40), Image.Resampling.BICUBIC)
    expected = np.asarray(scaled.crop((14, 4, 46, 36)), dtype=int)
    got = decode_image(encoded(noise), ImageInput("input", 32, 32, resize=40)).astype(int)
    assert np.abs(got - expected).max() <= 2


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 300)])
def test_odd_sizes_still_fill_the_input(size: tuple[int, int]) -> None:
    pixels = decode_image(encoded(Image.new("RGB", size, RED)), SQUARE)
    assert pixels.shape == (32, 32, 3)
    assert (pixels == np.array(RED)).all()


def test_a_crop_that_is_larger_than_the_scaled_picture_enlarges_it() -> None:
    wide = ImageInput("input", height=20, width=50, resize=10)
    pixels = decode_image(encoded(quarters()), wide)
    assert pixels.shape == (20, 50, 3)
    assert corners(pixels) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation: int) -> None:
    """Store the picture the way a turned camera would: what comes out must always be the upright picture."""
    turn = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = quarters(128, 64)
    stored = upright.transpose(turn[orientation]) if orientation in turn else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = decode_image(encoded(stored, "PNG", exif=exif), ImageInput("input", 32, 64, resize=32))
    assert corners(pixels) == [RED, GREEN, BLUE, WHITE]


def test_a_nonsense_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert corners(decode_image(encoded(quarters(), exif=exif), SQUARE)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_png_mode_gives_rgb(mode: str) -> None:
    shades = np.repeat(np.array([[0, 255]], np.uint8), 32, axis=1).repeat(
        64, axis=0
    )  # black left, white right
    picture = Image.fromarray(shades)
    picture = Image.fromarray(shades.astype(np.uint16) * 257) if mode == "I;16" else picture.convert(mode)
    pixels = decode_image(encoded(picture), SQUARE)
    assert corners(pixels) == [(0, 0, 0), WHITE, (0, 0, 0), WHITE]


def test_transparency_is_laid_on_white() -> None:
    picture = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (0, 0, 32, 64))
    assert corners(decode_image(encoded(picture), SQUARE)) == [BLUE, WHITE, BLUE, WHITE]


def test_a_transparent_colour_is_laid_on_white() -> None:
    picture = Image.new("RGB", (64, 64), RED)
    assert corners(decode_image(encoded(picture, transparency=RED), SQUARE)) == [WHITE] * 4


def test_cmyk_jpegs_are_converted() -> None:
    picture = Image.new("CMYK", (64, 64), (0, 255, 255, 0))  # magenta and yellow ink: red
    pixels = decode_image(encoded(picture, "JPEG", quality=95), SQUARE).astype(int)
    assert np.abs(pixels - np.array(RED)).max() < 12


def test_grey_jpegs_are_converted() -> None:
    pixels = decode_image(encoded(Image.new("L", (64, 64), 128), "JPEG"), SQUARE)
    assert np.abs(pixels.astype(int) - 128).max() <= 2


def test_a_large_jpeg_looks_as_if_it_had_been_decoded_whole() -> None:
    rng = np.random.default_rng(0)
    scene = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((1600, 1200))
    data = encoded(scene, "JPEG", quality=95)
    whole = Image.open(io.BytesIO(data)).resize((32, 32), Image.Resampling.BICUBIC, box=(200, 0, 1400, 1200))
    difference = np.abs(decode_image(data, SQUARE).astype(int) - np.asarray(whole, dtype=int))
    assert difference.mean() < 2


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\x00" * 100,
        b"GIF89a" + b"\x00" * 50,
        b"<svg/>",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"%!PS-Adobe-3.0 EPSF",
    ],
)
def test_what_is_no_picture_is_refused(junk: bytes) -> None:
    with pytest.raises(InvalidArgument, match="send one JPEG or PNG"):
        decode_image(junk, SQUARE)


@pytest.mark.parametrize("format", ["GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_are_not_even_tried(format: str) -> None:  # noqa: A002
    with pytest.raises(InvalidArgument, match="JPEG or PNG"):
        decode_image(encoded(quarters(), format), SQUARE)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_cut_file_is_refused(format: str, share: float) -> None:  # noqa: A002
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    data = encoded(noise, format)
    with pytest.raises(InvalidArgument, match=r"cut short|JPEG or PNG"):
        decode_image(data[: int(len(data) * share)], SQUARE)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_damaged_files_never_raise_anything_else(format: str) -> None:  # noqa: A002
    rng = np.random.default_rng(0)
    data = encoded(quarters(), format)
    for _ in range(300):
        broken = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            broken[position] = rng.integers(0, 256)
        try:
            assert decode_image(bytes(broken), SQUARE).shape == (32, 32, 3)
        except InvalidArgument as error:
            assert str(error)  # noqa: PT017 - either outcome is right, any other exception is not


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 30_000, 2**31 - 1])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(InvalidArgument, match="at most 50000000"):
        decode_image(png_header(side, side), SQUARE)


def test_the_pixel_limit_is_the_callers() -> None:
    data = encoded(quarters(64, 64))
    assert decode_image(data, SQUARE, ImageLimits(pixels=64 * 64)).shape == (32, 32, 3)
    with pytest.raises(InvalidArgument, match="64 x 64 = 4096 pixels: at most 4095"):
        decode_image(data, SQUARE, ImageLimits(pixels=64 * 64 - 1))


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    data = encoded(quarters(), "JPEG", progressive=True)
    assert corners(decode_image(data, SQUARE, ImageLimits(jpeg_scans=20)))
    with pytest.raises(InvalidArgument, match="scans: at most 2"):
        decode_image(data, SQUARE, ImageLimits(jpeg_scans=2))


def test_a_png_text_bomb_does_not_expand() -> None:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("comment", "a" * 50_000_000, zip=True)
    data = encoded(quarters(), pnginfo=info)
    assert len(data) < 200_000
    with pytest.raises(InvalidArgument):
        decode_image(data, SQUARE)


def test_threads_do_not_disturb_one_another() -> None:
    files = [encoded(Image.new("RGB", (200 + i, 300), (i, 2 * i, 255 - i)), "PNG") for i in range(60)]
    with ThreadPoolExecutor(8) as pool:
        decoded = list(pool.map(lambda data: decode_image(data, SQUARE), files * 4))
    for position, pixels in enumerate(decoded):
        i = position % 60
        assert (pixels == np.array((i, 2 * i, 255 - i))).all()


def test_a_turned_jpeg_that_is_decoded_at_a_fraction_of_its_size_comes_out_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(quarters(1280, 640).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif, quality=95)
    pixels = decode_image(data, ImageInput("input", 32, 64, resize=32)).astype(int)
    assert np.abs(np.array(corners(pixels)) - np.array([RED, GREEN, BLUE, WHITE])).max() < 12
