"""Folders of images: all that is in them is read, refused, or left out with a word."""

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from ppl_vae import InputError, load_data
from ppl_vae.data.inspection import DataWarning
from ppl_vae.data.reading import Reading
from ppl_vae.data.sources import load_rows

RNG = np.random.default_rng(0)
GREY = RNG.integers(256, size=(30, 6, 5), dtype=np.uint8)
COLOUR = RNG.integers(256, size=(30, 6, 5, 3), dtype=np.uint8)


def save(folder, images, suffix=".png", start=0, **options):
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images, start):
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(folder / f"{i:02}{suffix}", **options)


def everything(data):
    splits = (data.train, data.validation, data.test)
    return sorted(str(x.tolist()) for split in splits for x in split.x)


def as_stored(images):
    stack = torch.from_numpy(np.stack(images))
    stack = stack[:, None] if stack.dim() == 3 else stack.permute(0, 3, 1, 2)
    return sorted(str(x.tolist()) for x in stack)


def refused(folder, *words, **reading):
    with pytest.raises(InputError) as caught:
        load_data(folder, reading=Reading(**reading))
    for word in words:
        assert word in str(caught.value), str(caught.value)
    return caught.value


def told(folder, *words, **reading):
    """The data, and that one warning says these words."""
    with pytest.warns(DataWarning) as caught:
        data = load_data(folder, reading=Reading(**reading))
    lines = [str(warning.message) for warning in caught]
    for word in words:
        assert any(word in line for line in lines), lines
    return data


# What is left out


@pytest.mark.parametrize(
    "hidden",
    [".ipynb_checkpoints/00.png", "__MACOSX/00.png", "._00.png", "Thumbs.db", ".DS_Store",
     "cats/@eaDir/00.png", "cats/.git/objects/aa.png"],
)  # fmt: skip
def test_what_systems_put_beside_images_is_left_out(hidden, tmp_path):
    save(tmp_path / "cats", GREY[:15])
    save(tmp_path / "dogs", GREY[15:])
    file = tmp_path / hidden
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(GREY[0]).save(file, format="PNG")
    data = load_data(tmp_path)
    assert everything(data) == as_stored(GREY)
    assert data.label_names == ("cats", "dogs")


@pytest.mark.parametrize("suffix", [".jfif", ".JPG", ".jpe", ".image", "", ".png"])
def test_images_are_read_whatever_they_are_called(suffix, tmp_path):
    save(tmp_path, GREY[:20], format="BMP")
    save(tmp_path, GREY[20:], suffix, start=20, format="BMP")
    assert everything(load_data(tmp_path)) == as_stored(GREY)


def test_files_that_are_no_images_are_counted(tmp_path):
    save(tmp_path, GREY)
    for name in ("a.txt", "b.txt", "c.heic", "README", "P5.csv", "BM", "empty"):
        (tmp_path / name).write_text("BM" if name == "BM" else "" if name == "empty" else "words")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    data = told(tmp_path, "left out", "3 .txt", "1 .heic", "3 without a suffix", "1 .csv")
    assert everything(data) == as_stored(GREY)


def test_a_folder_of_no_image_says_what_is_in_it(tmp_path):
    for i in range(12):
        (tmp_path / f"{i}.heic").write_bytes(b"\0\0\0\x24ftypheic")
    refused(tmp_path, "12 .heic", "PNG or JPEG")


def test_folders_that_are_linked_to_are_read_once(tmp_path):
    save(tmp_path / "elsewhere", GREY[15:])
    save(tmp_path / "data" / "cats", GREY[:15])
    (tmp_path / "data" / "dogs").symlink_to(tmp_path / "elsewhere")
    data = load_data(tmp_path / "data")
    assert everything(data) == as_stored(GREY)
    assert data.label_names == ("cats", "dogs")
    (tmp_path / "data" / "again").symlink_to("cats")
    (tmp_path / "data" / "cats" / "up").symlink_to(tmp_path)
    data = told(tmp_path / "data", "again: left out", "up: left out")
    assert everything(data) == as_stored(GREY)


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root reads all")
def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    save(tmp_path, GREY)
    (tmp_path / "locked").mkdir(mode=0)
    assert refused(tmp_path).culprit.endswith("locked")


# What an image holds


PAGES = [Image.fromarray(image) for image in GREY[:5]]


@pytest.mark.parametrize("suffix", [".tif", ".gif", ".png", ".webp"])
def test_pages_and_frames_are_counted_and_refused(suffix, tmp_path):
    save(tmp_path, PAGES, suffix)  # of one page each
    PAGES[0].save(tmp_path / f"z{suffix}", save_all=True, append_images=PAGES[1:])
    assert refused(tmp_path, "5 pages or frames").culprit.endswith(f"z{suffix}")


def test_further_pictures_of_a_camera_are_left_out_with_a_word(tmp_path):
    for i, image in enumerate(COLOUR):
        first = Image.fromarray(image)
        first.save(tmp_path / f"{i}.jpg", format="MPO", save_all=True, append_images=[first])
    assert told(tmp_path, "30 of 30 images have further pictures").shape == (3, 6, 5)


def with_alpha(image, alpha):
    return np.concatenate([image, np.broadcast_to(alpha, (*image.shape[:2], 1))], 2).astype("u1")


def test_transparent_parts_are_laid_on_white_with_a_word(tmp_path):
    alpha = RNG.integers(256, size=(6, 5, 1), dtype=np.uint8)
    save(tmp_path, [with_alpha(image, alpha) for image in COLOUR])
    data = told(tmp_path, "30 of 30 images have transparent parts, laid on white")
    share = alpha / 255
    exact = np.stack([share * image + (1 - share) * 255 for image in COLOUR]).transpose(0, 3, 1, 2)
    stored = torch.cat([data.test.x, data.validation.x, data.train.x]).double()
    rows = torch.cat([data.test.rows, data.validation.rows, data.train.rows])
    # Pillow rounds the product of two bytes, and their sum.
    assert (stored - torch.from_numpy(exact)[rows]).abs().max() <= 1


@pytest.mark.parametrize("mode", ["LA", "P", "L"])
def test_transparency_of_other_modes(mode, tmp_path):
    if mode == "LA":
        images = [with_alpha(image[:, :, None], 0) for image in GREY]
        save(tmp_path, images)
    else:
        image = Image.new(mode, (5, 6), 7)
        if mode == "P":
            image.putpalette(bytes(range(256)) * 3)
        save(tmp_path, [image] * 30, transparency=7)
    data = told(tmp_path, "30 of 30 images have transparent parts")
    assert data.shape == (3 if mode == "P" else 1, 6, 5)
    assert data.train.x.min() == 255


def test_an_opaque_channel_changes_nothing(tmp_path):
    save(tmp_path, [with_alpha(image, 255) for image in COLOUR])
    assert everything(load_data(tmp_path)) == as_stored(COLOUR)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_images_stand_upright(suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right brings it upright
    lossless = {"lossless": True} if suffix == ".webp" else {}
    save(tmp_path, COLOUR, suffix, exif=exif, **lossless)
    turned = [np.rot90(image, -1).copy() for image in COLOUR]
    assert everything(load_data(tmp_path)) == as_stored(turned)


def deep_ppm(file):
    file.write_bytes(b"P6 5 6 65535\n" + RNG.bytes(5 * 6 * 3 * 2))


def deep_png(file):
    """Colours of 16 bits, of which Pillow would keep the higher 8."""
    import struct
    import zlib

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    lines = b"".join(b"\0" + RNG.bytes(5 * 3 * 2) for _ in range(6))
    head = struct.pack(">IIBBBBB", 5, 6, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def sixteen(file):
    Image.fromarray(RNG.integers(2**16, size=(6, 5), dtype=np.uint16)).save(file, format="PNG")


def floats(file):
    Image.fromarray(RNG.random((6, 5)).astype("f4")).save(file, format="TIFF")


def whole(file):
    Image.fromarray(RNG.integers(2**20, size=(6, 5), dtype=np.int32)).save(file, format="TIFF")


@pytest.mark.parametrize("write", [deep_ppm, deep_png, sixteen, floats, whole])
def test_more_than_eight_bits_are_refused(write, tmp_path):
    write(tmp_path / "a.png")
    error = refused(tmp_path, ".npy array")
    assert error.culprit.endswith("a.png")
    assert "8" in error.problem


def test_cmyk_and_palettes_are_colours_and_bits_are_grey(tmp_path):
    for mode, shape in {"CMYK": 3, "P": 3, "1": 1}.items():
        images = [Image.fromarray(image).convert(mode) for image in COLOUR]
        save(tmp_path / mode, images, ".tif")
        assert load_data(tmp_path / mode).shape == (shape, 6, 5)


def test_mixed_modes_and_sizes_are_refused_with_what_mends_them(tmp_path):
    save(tmp_path / "a", COLOUR)
    save(tmp_path / "a", GREY, start=30)
    assert refused(tmp_path / "a", "is grey, but", "has colours").remedy == "make-grey"
    data = load_data(tmp_path / "a", reading=Reading(grey=True))
    assert data.shape == (1, 6, 5)
    assert set(as_stored(GREY)) < set(everything(data))
    save(tmp_path / "b", [*GREY, *GREY[:, :4]])
    assert refused(tmp_path / "b", "4x5 pixels", "6x5").remedy == "resize"
    assert load_data(tmp_path / "b", reading=Reading(resize=(3, 8))).shape == (1, 3, 8)


def test_one_size_already_stays_as_it_is(tmp_path):
    save(tmp_path, COLOUR)
    assert everything(load_data(tmp_path, reading=Reading(resize=(6, 5)))) == as_stored(COLOUR)


def test_new_images_are_read_as_those_of_the_run(tmp_path):
    save(tmp_path, COLOUR[:3])
    like = {"shape": [1, 4, 4], "levels": 255, "reading": {"resize": [4, 4], "grey": True}}
    assert load_rows(tmp_path, like).x.shape == (3, 1, 4, 4)


# Splits and classes


def test_folders_of_splits_are_the_splits(tmp_path):
    for names in (("train", "test"), ("Training", "val", "Test"), ("train", "valid")):
        folder = tmp_path / "-".join(names)
        for i, name in enumerate(names):
            for j, label in enumerate("ab"):
                save(folder / name / label, GREY[5 * (2 * i + j) :][:5])
        data = load_data(folder)
        assert data.label_names == ("a", "b")
        parts = {"train": data.train, "val": data.validation, "test": data.test}
        for i, name in enumerate(names):
            split = parts[{"training": "train", "valid": "val"}.get(name.lower(), name.lower())]
            expected = as_stored(GREY[10 * i :][:10])
            found = sorted(str(x.tolist()) for x in split.x)
            assert found == expected if i else set(found) <= set(expected)
        assert sum(map(len, parts.values())) == 10 * len(names)
        assert min(map(len, parts.values())) > 0


def test_splits_within_a_folder_and_without_classes(tmp_path):
    save(tmp_path / "archive" / "train", GREY[:20])
    save(tmp_path / "archive" / "test", GREY[20:])
    data = load_data(tmp_path)
    assert sorted(str(x.tolist()) for x in data.test.x) == as_stored(GREY[20:])
    assert data.label_names == ()


@pytest.mark.parametrize("names", [("train", "bus"), ("test", "control"), ("train",), ("test",)])
def test_a_lone_name_of_a_split_is_no_split(names, tmp_path):
    for i, name in enumerate(names):
        save(tmp_path / name, GREY[15 * i :][:15])
    data = load_data(tmp_path)
    assert len(data.train) + len(data.validation) + len(data.test) == 15 * len(names)
    assert data.label_names == (tuple(sorted(names)) if len(names) == 2 else ())


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("test", "val"), "none of training data"),
        (("train", "val", "valid"), "two of one split"),
        (("train", "test", "dogs"), "the folder dogs"),
        (("train", "test", "."), "no folder"),
        (("cats/train", "cats/test", "dogs/train", "dogs/test"), "inside others"),
    ],
)
def test_splits_that_are_none_are_refused(names, words, tmp_path):
    for i, name in enumerate(names):
        save(tmp_path / name, GREY[5 * i :][:5])
    refused(tmp_path, words)


def test_new_data_are_one_split(tmp_path):
    save(tmp_path / "train", GREY[:20])
    save(tmp_path / "val", GREY[20:])
    like = {"shape": [1, 6, 5], "levels": 255}
    with pytest.raises(InputError, match="one of"):
        load_rows(tmp_path, like)
    assert load_rows(tmp_path / "val", like).size == 10


def test_images_without_a_class_have_no_label(tmp_path):
    save(tmp_path, GREY[:10])
    save(tmp_path / "a", GREY[10:20])
    save(tmp_path / "b", GREY[20:])
    data = told(tmp_path, "10 images lie in no folder of a class")
    assert data.label_names == ("a", "b")
    labels = torch.cat([data.train.labels, data.validation.labels, data.test.labels])
    assert torch.bincount(labels + 1).tolist() == [10, 10, 10]


def test_a_class_of_one_split_is_named(tmp_path):
    for i, name in enumerate(("train/a", "train/b", "test/a", "test/c")):
        save(tmp_path / name, GREY[7 * i :][:7])
    assert told(tmp_path, "the class b is in train only (and 1 more").label_names == tuple("abc")


def test_copies_of_training_images_are_counted(tmp_path):
    save(tmp_path / "train", GREY[:20])
    save(tmp_path / "val", GREY[16:24])
    save(tmp_path / "test", GREY[20:])
    told(tmp_path, "4 of 8 images of validation are exact copies of images of train")
    save(tmp_path / "flat", GREY[:12])
    save(tmp_path / "flat", GREY[:3], start=12)
    told(tmp_path / "flat", "3 of 15 images are exact copies of others")


def test_a_plain_folder_says_nothing(tmp_path):
    save(tmp_path / "a", GREY[:15])
    save(tmp_path / "b", GREY[15:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert repr(load_data(tmp_path)).endswith("2 classes)")
