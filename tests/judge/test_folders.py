"""Folders: which files are listed, what is said of the others, what belongs together, and what must not."""

import errno
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from judge import folders, labelled
from judge.common.errors import UserError
from judge.folders import check_disjoint, list_images, name_apart


def save(*paths: Path) -> list[Path]:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(path)
    return list(paths)


def refused(words: str, function, *arguments) -> None:
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert words in str(caught.value)


def test_images_are_listed_by_name_within_each_folder_in_the_order_of_the_folders(tmp_path):
    expected = save(*(tmp_path / "z" / name for name in ("a.JPG", "a10.jpeg", "a2.webp", "b.png", "c/a.png")))
    expected += save(tmp_path / "a/0.png")
    save(tmp_path / ".thumbnails/0.png")
    assert list_images([tmp_path / "z", tmp_path / "a"]) == expected
    assert list_images([tmp_path / ".thumbnails"]) == [tmp_path / ".thumbnails/0.png"]  # asked for by name


def test_linked_folders_are_followed_and_each_folder_is_visited_once(tmp_path):
    save(tmp_path / "elsewhere/there.png", tmp_path / "mine/0.png")
    for link in ("mine/monets", "mine/again"):
        (tmp_path / link).symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "mine")
    (tmp_path / "mine/itself").symlink_to("itself")
    assert list_images([tmp_path / "mine"]) == [tmp_path / "mine/0.png", tmp_path / "mine/again/there.png"]


def test_what_is_left_out_is_counted_by_kind_once_and_named_where_there_is_nothing_else(tmp_path, capsys):
    save(tmp_path / "0.png", tmp_path / "@eaDir/0.png")
    for name in ("2.heic", "1.heic", "README", "notes.txt", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).touch()
    (tmp_path / "monets").symlink_to("nowhere")
    for _ in range(2):
        assert list_images([tmp_path]) == [tmp_path / "0.png"]
    said = ("2 .heic (1.heic, ...), 1 .txt (notes.txt), 1 broken link (monets), "
            "1 folder of a system (@eaDir), 1 no ending (README)")
    assert capsys.readouterr().err == (
        f"note: left out in {tmp_path}: {said}; images end in {folders.ENDINGS}\n")
    (tmp_path / "0.png").unlink()
    refused(f"no images in {tmp_path}, only {said}: put", list_images, [tmp_path])


def test_a_folder_that_cannot_be_opened_is_named(tmp_path, monkeypatch, capsys):
    save(tmp_path / "0.png", tmp_path / "secret/1.png")
    scandir = os.scandir

    def deny(folder):
        if str(folder).endswith("secret"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", deny)
    assert list_images([tmp_path]) == [tmp_path / "0.png"]
    assert "1 folder, Permission denied (secret)" in capsys.readouterr().err


def test_names_are_apart_without_endings_where_they_can_be(tmp_path):
    names = ["a.jpg", "a.original.jpg", "b.jpg", "b.png", "c/a.jpg", "d.jpg", "d.jpg.png"]
    named = name_apart([tmp_path / name for name in names], tmp_path)
    assert named == {name: tmp_path / file for name, file in zip(
        ["a", "a.original", "b.jpg", "b.png", "c/a", "d", "d.jpg.png"], names)}


def test_names_in_unicodes_two_forms_are_the_same_name(tmp_path):
    composed, decomposed, bytes_ = "caf\u00e9", "cafe\u0301", os.fsdecode(b"caf\xe9")
    paths = [tmp_path / f"{decomposed}.jpg", tmp_path / f"{bytes_}.jpg"]
    assert name_apart(paths, tmp_path) == {composed: paths[0], bytes_: paths[1]}
    paths = [tmp_path / f"{decomposed}.jpg", tmp_path / f"{composed}.png"]
    assert name_apart(paths, tmp_path) == {f"{composed}.jpg": paths[0], f"{composed}.png": paths[1]}
    paths = [tmp_path / f"{decomposed}/0.jpg", tmp_path / f"{composed}/0.jpg"]
    refused("have the same name, in Unicode's forms NFC and NFD", name_apart, paths, tmp_path)


def test_a_picture_is_in_one_group_only_also_by_way_of_links(tmp_path):
    one, two = save(tmp_path / "1.png", tmp_path / "2.png")
    (tmp_path / "link.png").symlink_to("1.png")
    (tmp_path / "broken.png").symlink_to("nowhere")
    os.link(two, tmp_path / "hard.png")
    broken = tmp_path / "broken.png"
    check_disjoint({"a": [one, one, broken], "b": [two, broken]})
    for other in ("link.png", "1.png"):
        refused(f"{one} is in a and in b", check_disjoint, {"a": [one], "b": [two, tmp_path / other]})
    refused(f"{two} is in a and in b", check_disjoint, {"a": [two], "b": [tmp_path / "hard.png"]})


@pytest.mark.parametrize("first", ["trainA", "testB"])
def test_a_data_set_with_a_picture_in_two_places_is_refused(tmp_path, sample_data, first):
    from judge import images

    data = shutil.copytree(sample_data, tmp_path / "data")
    shutil.rmtree(data / first)
    (data / first).symlink_to("trainB")
    refused("is in trainA and in trainB" if first == "trainA" else "is in trainB and in testB",
            images.find_dataset, str(data))


def test_the_classes_of_a_folder_are_the_users_folders_and_share_no_picture(tmp_path, capsys):
    for name in ("apples", os.fsdecode(b"pears-\xe9"), "@eaDir", ".hidden"):
        save(*(tmp_path / name / f"{number}.png" for number in range(40)))
    save(tmp_path / "loose.png")
    assert labelled.load_labelled(str(tmp_path), 16).classes == ("apples", "pears-\\udce9")
    assert f"note: {tmp_path}: 1 file beside the subfolders is left out" in capsys.readouterr().err
    (tmp_path / "plums").symlink_to("apples")
    refused("is in apples and in plums", labelled.load_labelled, str(tmp_path), 16)
