"""Images in folders: what becomes an example, what is counted, and what is refused by name."""

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from lockstep import files
from lockstep.datasets import prepare, sharded, shards
from lockstep.datasets.reader import Reader
from lockstep.datasets.sources import image_folder
from lockstep.errors import UserError
from tests.datasets import pictures
from tests.pictures import cifar10


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return pictures.folder(tmp_path / "raw")


def make(raw: Path, **options: object) -> Path:
    """Preprocess; returns the manifest."""
    entry = {"source": "image_folder", "options": {"size": 16, **options}}
    prepare.prepare("animals", entry, "id", raw, raw.parent / "made", workers=1)
    return raw.parent / "made" / "manifest.json"


def test_examples_are_in_the_order_of_classes_and_names(raw: Path) -> None:
    manifest = files.read_json(make(raw))
    assert manifest["classes"] == ["ant", "bee", "cat"]
    assert manifest["arrays"]["image"] == {"dtype": "uint8", "shape": [16, 16, 3]}
    assert manifest["tools"]["Pillow"] == Image.__version__
    labels = Reader(raw.parent / "made" / "manifest.json", "train").take(np.arange(12))["label"]
    assert labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_an_image_is_brought_to_size_and_cut_out_at_the_centre(tmp_path: Path) -> None:
    raw = pictures.folder(tmp_path / "raw", size=(64, 32))
    images = Reader(make(raw), "train").take(np.array([5]))["image"]
    small = Image.open(raw / "train/bee/0001.jpg").resize((32, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images[0], np.asarray(small)[:, 8:24])


def test_an_image_of_the_stored_size_is_kept_as_it_decodes(tmp_path: Path) -> None:
    raw = pictures.folder(tmp_path / "raw", size=(16, 16))
    images = Reader(make(raw), "test").take(np.array([3]))["image"]
    np.testing.assert_array_equal(images[0], np.asarray(Image.open(raw / "test/bee/0001.jpg")))


def test_the_names_and_hashes_of_the_originals_are_kept(raw: Path) -> None:
    with h5py.File(make(raw).parent / "train-00000.h5") as shard:
        names = [name.decode() for name in shard["originals/name"][()]]
        assert names[4] == "train/bee/0000.jpg"
        for name, digest in zip(names, shard["originals/sha256"][()]):
            assert files.sha256_file(raw / name) == bytes(digest).hex()


@pytest.mark.parametrize("name", ["val", "validation"])
def test_the_test_split_may_have_another_name(raw: Path, name: str) -> None:
    (raw / "test").rename(raw / name)
    assert files.read_json(make(raw))["splits"]["test"]["examples"] == 6


def test_of_two_folders_that_may_be_the_test_split_none_is_dropped(raw: Path) -> None:
    shutil.copytree(raw / "test", raw / "val")
    with pytest.raises(UserError, match=r"both test and val may be the test split; .*test: val}"):
        make(raw)
    manifest = files.read_json(make(raw, splits={"train": "train", "test": "val"}))
    assert manifest["splits"]["test"]["examples"] == 6


def test_splits_may_be_named(raw: Path) -> None:
    (raw / "train").rename(raw / "learn")
    (raw / "test").rename(raw / "deep")
    manifest = files.read_json(make(raw, splits={"train": "learn", "test": "deep"}))
    assert manifest["splits"]["train"]["examples"] == 12


def test_limits_take_the_first_and_count_the_rest(raw: Path) -> None:
    manifest = files.read_json(make(raw, classes=2, limit={"train": 3}))
    assert manifest["classes"] == ["ant", "bee"]
    assert manifest["splits"]["train"]["examples"] == 6
    assert manifest["splits"]["test"]["examples"] == 4
    assert manifest["passed_over"] == {"beyond the limits": 8}


def test_classes_may_be_named(raw: Path) -> None:
    assert files.read_json(make(raw, classes=["cat", "ant"]))["classes"] == ["ant", "cat"]


def test_every_conversion_is_counted(raw: Path, capsys: pytest.CaptureFixture) -> None:
    image = pictures.pixels(99, 40, 30)
    ant = raw / "train/ant"
    (ant / "0000.jpg").write_bytes(pictures.jpeg(image, "L"))
    (ant / "0001.jpg").write_bytes(pictures.jpeg(image, "CMYK"))
    (ant / "0002.jpg").write_bytes(pictures.jpeg(image, "RGBA", "PNG"))  # as in ImageNet
    (ant / "0003.jpg").write_bytes(pictures.jpeg(image[:12, :14]))
    manifest = make(raw)
    counts = files.read_json(manifest)["splits"]["train"]["counts"]
    assert counts == {"CMYK": 1, "PNG": 1, "enlarged": 1, "grayscale": 1, "transparent": 1}
    images = Reader(manifest, "train").take(np.arange(4))["image"]
    assert (images[0] == images[0, :, :, :1]).all(), "three equal channels"
    expected = Image.fromarray(image).resize((16, 16), box=(5, 0, 35, 30))
    assert abs(images[1].astype(int) - np.asarray(expected)).mean() < 12, "CMYK is not inverted"
    np.testing.assert_array_equal(
        images[2],
        Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR, (5, 0, 35, 30)),
    )
    assert "animals: train: 1 CMYK" in capsys.readouterr().err


KINDS = {  # how Pillow is to write each, and whether all pixels stay as they are
    "PNG": ({}, True),
    "WEBP": ({"lossless": True}, True),
    "BMP": ({}, True),
    "TIFF": ({}, True),
    "GIF": ({}, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_images_of_other_formats_are_read_and_counted(raw: Path, kind: str) -> None:
    options, exact = KINDS[kind]
    image = Image.fromarray(pictures.pixels(99, 16, 16))
    image.save(raw / "train/ant/0000.jpg", kind, **options)
    manifest = make(raw)
    assert files.read_json(manifest)["splits"]["train"]["counts"][kind] == 1
    found = Reader(manifest, "train").take(np.array([0]))["image"][0]
    assert abs(found.astype(int) - np.asarray(image)).max() <= (0 if exact else 40)


def test_a_grey_tiff_of_16_bits_is_refused(raw: Path) -> None:
    deep = np.full((16, 16), 40_000, np.uint16)
    Image.fromarray(deep).save(raw / "train/ant/0000.jpg", "TIFF")
    with pytest.raises(UserError, match="is grayscale of 16 bits; convert it to 8 bits a channel"):
        make(raw)


def test_what_nobody_means_as_an_image_is_left_out_and_counted(
    raw: Path, capsys: pytest.CaptureFixture
) -> None:
    before = files.read_json(make(raw))["content"]
    shutil.rmtree(raw.parent / "made")
    for name in ("Thumbs.db", "desktop.ini", "readme.txt", "labels.CSV", "notes.txt"):
        (raw / "train/bee" / name).write_bytes(b"no image")
    manifest = files.read_json(make(raw))
    assert manifest["passed_over"] == {
        **{"thumbs.db": 1, "desktop.ini": 1},
        **{"*.txt": 2, "*.csv": 1},
    }
    assert manifest["content"] == before
    assert "1 files passed over: thumbs.db" in capsys.readouterr().err
    shutil.rmtree(raw.parent / "made")
    (raw / "train/bee/picture.xyz").write_bytes(b"no image")
    with pytest.raises(UserError, match="picture.xyz is none of JPEG, PNG"):
        make(raw)


DAMAGE = {
    "cut": (lambda content: content[:-100], "image file is truncated"),
    "cut in its header": (lambda content: content[:300], "Truncated File Read"),
    "empty": (lambda content: b"", "is none of JPEG, PNG"),
    "text": (lambda content: b"not an image", "is none of JPEG, PNG"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_file_that_cannot_be_decoded_is_refused_by_name(raw: Path, how: str) -> None:
    path = raw / "train/bee/0001.jpg"
    change, why = DAMAGE[how]
    path.write_bytes(change(path.read_bytes()))
    message = rf"1 files cannot be decoded \(train/bee/0001.jpg .*{why}"
    with pytest.raises(UserError, match=message):
        make(raw)
    assert not (raw.parent / "made").exists()


def test_of_many_bad_files_some_are_named_and_all_are_counted(raw: Path) -> None:
    for path in (raw / "train").rglob("*.jpg"):
        path.write_bytes(b"bad")
    with pytest.raises(UserError, match=r"12 files cannot be decoded \(train/ant/0000.jpg .*; …\)"):
        make(raw, shard=3)


def test_bad_files_are_left_out_and_counted_if_one_says_so(
    raw: Path, capsys: pytest.CaptureFixture
) -> None:
    (raw / "train/bee/0001.jpg").write_bytes(b"bad")
    manifest = make(raw, corrupt="skip", shard=6)
    content = files.read_json(manifest)
    assert content["splits"]["train"]["counts"] == {"skipped": 1}
    assert content["splits"]["train"]["examples"] == 11
    assert content["skipped"] == ["train/bee/0001.jpg is none of JPEG, PNG, WEBP, BMP, GIF, TIFF"]
    labels = Reader(manifest, "train").take(np.arange(11))["label"]
    assert np.bincount(labels).tolist() == [4, 3, 4]
    assert "train: 1 skipped" in capsys.readouterr().err


def test_a_class_of_which_nothing_is_left_is_refused(raw: Path) -> None:
    for path in (raw / "test/cat").iterdir():
        path.write_bytes(b"bad")
    with pytest.raises(UserError, match=r"test: 1 classes have no image that .* \(cat\)"):
        make(raw, corrupt="skip")


def test_a_file_that_vanishes_midway_is_named(raw: Path) -> None:
    options = {"size": 16, "corrupt": "skip"}
    survey = image_folder.survey(raw, options)
    (raw / "train/ant/0001.jpg").unlink()
    said = {"name": "animals", "identity": "id", "source": "image_folder", "options": options}
    about = {**said, "origin": "", "licence": "", "classes": list(survey.classes), "tools": {}}
    with pytest.raises(UserError, match="1 files could not be read .train/ant/0001.jpg was listed"):
        sharded.prepare(about, survey, raw, raw.parent / "made", workers=1)
    assert not (raw.parent / "made").exists()


def test_a_link_to_nowhere_is_named(raw: Path) -> None:
    (raw / "train/ant/0009.jpg").symlink_to("gone.jpg")
    with pytest.raises(
        UserError, match="1 files could not be read .*0009.jpg was listed and is not"
    ):
        make(raw, corrupt="skip")


def test_a_lost_file_is_named_among_many_bad_ones(raw: Path) -> None:
    for path in [*(raw / "train/ant").iterdir(), *(raw / "train/bee").iterdir()]:
        path.write_bytes(b"bad")
    (raw / "train/cat/0009.jpg").symlink_to("gone.jpg")
    for shard in (2, 100):
        with pytest.raises(
            UserError, match=r"1 files could not be read \(train/cat/0009.jpg was listed and is not"
        ):
            make(raw, corrupt="skip", shard=shard)


def test_bad_files_are_told_beside_lost_ones(raw: Path) -> None:
    (raw / "train/bee/0001.jpg").write_bytes(b"bad")
    (raw / "train/cat/0009.jpg").symlink_to("gone.jpg")
    with pytest.raises(UserError, match=r"1 files could not .*; besides, 1 cannot be .*bee/0001"):
        make(raw)


def test_too_little_memory_is_told_and_is_no_fault_of_the_file(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def want(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "decode", want)
        with pytest.raises(UserError, match="train/ant/0000.jpg: there is too little memory to"):
            make(raw, corrupt="skip")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "write", want)
        with pytest.raises(UserError, match="train-00000.h5: there is too little memory for 12"):
            make(raw)
    assert files.read_json(make(raw))["splits"]["train"]["examples"] == 12


def test_what_is_no_class_and_hidden_files_are_counted(raw: Path) -> None:
    (raw / "train/.DS_Store").touch()
    (raw / "train/ant/._0000.jpg").touch()
    (raw / "train/readme.txt").touch()
    passed_over = files.read_json(make(raw))["passed_over"]
    assert passed_over == {"hidden": 2, "beside the classes": 1}


def test_files_are_found_behind_links(raw: Path) -> None:
    """ImageNet is often a farm of links."""
    (raw / "train/bee").rename(raw.parent / "elsewhere")
    (raw / "train/bee").symlink_to(raw.parent / "elsewhere")
    assert files.read_json(make(raw))["splits"]["train"]["examples"] == 12


def duplicate_by_case(raw: Path) -> None:
    for split in ("train", "test"):
        (raw / split / "ANT").mkdir()
        (raw / split / "ANT/1.jpg").write_bytes(b"")


MISTAKES = {
    "empty class": (
        lambda raw: [path.unlink() for path in (raw / "train/bee").iterdir()],
        r"train: 1 class is empty \(bee\); remove",
    ),
    "class missing from test": (
        lambda raw: (
            [path.unlink() for path in (raw / "test/cat").iterdir()] and (raw / "test/cat").rmdir()
        ),
        r"test: lacks 1 class \(cat\) of .*train",
    ),
    "class missing from train": (
        lambda raw: (raw / "test/dog").mkdir() or (raw / "test/dog/1.jpg").touch(),
        r"train: lacks 1 class \(dog\) of .*test",
    ),
    "duplicate by case": (duplicate_by_case, "'ANT' and 'ant' differ in case"),
    "duplicate by link": (
        lambda raw: (raw / "train/dog").symlink_to("cat"),
        "train/dog: is the same folder as .*train/cat",
    ),
    "test is train": (
        lambda raw: (raw / "test").rename(raw / "old") and (raw / "test").symlink_to("train"),
        "test: is the same folder as .*train",
    ),
    "a test class is a training class": (
        lambda raw: (
            (raw / "test/ant").rename(raw / "old") and (raw / "test/ant").symlink_to("../train/ant")
        ),
        "test/ant: is the same folder as .*train/ant",
    ),
    "link to itself": (
        lambda raw: (raw / "train/dog").symlink_to("dog"),
        "train/dog: is a link that loops",
    ),
    "link to nowhere": (  # in all splits: else classes would differ
        lambda raw: [(raw / s / "dog").symlink_to("/mnt/gone/dog") for s in ("train", "test")],
        "train/dog: is a link that leads nowhere; remove it, or bring back /mnt/gone/dog",
    ),
    "link upwards": (
        lambda raw: (raw / "train/dog").symlink_to(".."),
        "train/dog: is a link that loops, it leads back to .*raw",
    ),
    "folder in a class": (
        lambda raw: (raw / "train/ant/more").mkdir(),
        "ant/more: is a folder; a class's folder holds images alone",
    ),
    "pipe in a class": (
        lambda raw: os.mkfifo(raw / "train/ant/pipe.jpg"),
        "ant/pipe.jpg: is no file but a pipe",
    ),
    "link to a device": (
        lambda raw: (raw / "train/ant/endless.jpg").symlink_to("/dev/zero"),
        "ant/endless.jpg: is no file but a pipe, a socket or a device",
    ),
    "no test split": (
        lambda raw: (raw / "test").rename(raw / "testing"),
        "test: no such folder for the split test; .* has testing, train",
    ),
    "no classes": (
        lambda raw: (
            [(raw / "test" / n).rename(raw / n) for n in pictures.CLASSES]
            and (raw / "test/1.jpg").touch()
        ),
        "test: holds no class folders",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_folders_that_are_not_as_they_should_be_are_named(raw: Path, mistake: str) -> None:
    spoil, message = MISTAKES[mistake]
    spoil(raw)
    with pytest.raises(UserError, match=message):
        make(raw)
    assert not (raw.parent / "made").exists()


def test_names_and_numbers_are_compared_with_what_is_there(raw: Path) -> None:
    with pytest.raises(UserError, match="options.classes is 9, but there are 3"):
        make(raw, classes=9)
    with pytest.raises(UserError, match="options.classes names 'bea'; did you mean 'bee'"):
        make(raw, classes=["bea"])


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="raw: no such folder; name the one that holds the images"):
        make(tmp_path / "raw")


def test_the_real_cifar10_files(tmp_path: Path) -> None:
    manifest = make(cifar10(tmp_path / "raw", 100, 50), size=32)
    content = files.read_json(manifest)
    assert (content["splits"]["train"]["examples"], content["splits"]["test"]["examples"]) == (
        1000,
        500,
    )
    assert content["content"].startswith(CIFAR10_CONTENT)
    images, labels = Reader(manifest, "train").take(np.array([300])).values()
    assert labels == [3] and content["classes"][3] == "cat"
    first = Image.open(tmp_path / "raw/train/cat/0000.jpg")
    np.testing.assert_array_equal(images[0], np.asarray(first))


CIFAR10_CONTENT = "9872b13f7882"
