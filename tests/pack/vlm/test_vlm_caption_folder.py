"""Captions beside images: listing, continuing, writing without loss."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vivace.vlm import caption_folder
from vivace.vlm.caption_folder import (
    EXISTING,
    IMAGE_SUFFIXES,
    CaptionError,
    ImageFolder,
    caption_path,
    write_caption,
)


def fill(folder: Path, *names: str) -> Path:
    """Make empty files, and the folders that they need."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def listed(folder: Path, recursive: bool = False) -> list[str]:
    found = ImageFolder(str(folder), recursive).images()
    return [path.relative_to(folder).as_posix() for path in found]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return fill(tmp_path, "cat.png") / "cat.png"


def test_natural_order(tmp_path: Path) -> None:
    fill(tmp_path, "10.png", "9.png", "b 2.jpg", "B 10.jpg", "a.gif", "01.png")
    assert listed(tmp_path) == ["01.png", "9.png", "10.png", "a.gif", "b 2.jpg", "B 10.jpg"]


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=8, unique=True))
def test_numbers_are_in_order(tmp_path_factory: pytest.TempPathFactory, ids: list[int]) -> None:
    folder = fill(tmp_path_factory.mktemp("numbers"), *(f"shot{i}x.png" for i in ids))
    assert listed(folder) == [f"shot{i}x.png" for i in sorted(ids)]


def test_only_images_whatever_the_case(tmp_path: Path) -> None:
    names = [f"{suffix[1:]}{suffix}" for suffix in IMAGE_SUFFIXES]
    fill(tmp_path, *names, "upper.PNG", "mixed.JpEg")
    fill(tmp_path, "notes.txt", "noending", ".png", "a.png.txt", "a.svg", "a.mp4")
    (tmp_path / "folder.png").mkdir()
    assert sorted(listed(tmp_path)) == sorted([*names, "upper.PNG", "mixed.JpEg"])
    assert len(names) == 8


def test_hidden_and_partial_ones_are_left_out(tmp_path: Path) -> None:
    fill(tmp_path, "a.png", ".b.png", "._a.png", "c.png.partial", "d.partial.png")
    fill(tmp_path, ".hidden/e.png", "f.partial/g.png", "h/i.png")
    assert listed(tmp_path, recursive=True) == ["a.png", "h/i.png"]


def test_folders_below(tmp_path: Path) -> None:
    fill(tmp_path, "z.png", "10/a.png", "9/b.png", "9/deep/c.png")
    assert listed(tmp_path) == ["z.png"]
    assert listed(tmp_path, recursive=True) == ["9/b.png", "9/deep/c.png", "10/a.png", "z.png"]


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    outside = fill(tmp_path / "outside", "secret.png", "more/x.png")
    folder = fill(tmp_path / "inside", "a.png")
    (folder / "b.png").symlink_to(folder / "a.png")
    (folder / "c.png").symlink_to(outside / "secret.png")
    (folder / "d.png").symlink_to(folder / "gone.png")
    (folder / "more").symlink_to(outside / "more")
    (folder / "loop").symlink_to(folder)
    assert listed(folder, recursive=True) == ["a.png", "b.png"]
    (tmp_path / "link").symlink_to(folder)
    assert listed(tmp_path / "link") == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("first", "second"),
    [("a.jpg", "a.png"), ("A.jpg", "a.png"), ("a.JPG", "a.jpg"), ("e\u0301.jpg", "\u00e9.png")],
)
def test_two_images_of_one_caption_are_refused(tmp_path: Path, first: str, second: str) -> None:
    fill(tmp_path, first, second, "other.png")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system takes the two names for one")
    for recursive in (False, True):
        with pytest.raises(ValueError, match="would share the caption") as caught:
            ImageFolder(str(tmp_path), recursive).pending()
        assert str(tmp_path / first) in str(caught.value)
        assert str(tmp_path / second) in str(caught.value)
        assert "Rename one of the two" in str(caught.value)


def test_the_same_name_in_two_folders_is_no_conflict(tmp_path: Path) -> None:
    fill(tmp_path, "a/x.png", "b/x.jpg")
    assert listed(tmp_path, recursive=True) == ["a/x.png", "b/x.jpg"]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none is no folder, or may not be entered\. Check"):
        ImageFolder(str(tmp_path / "none"))
    with pytest.raises(ValueError, match="is no folder"):
        ImageFolder(f"{tmp_path}/a\0b")
    fill(tmp_path, "sub/notes.txt")
    with pytest.raises(ValueError, match=r"notes\.txt is a file, not a folder\. Give its folder: "):
        ImageFolder(str(tmp_path / "sub" / "notes.txt"))
    with pytest.raises(ValueError, match=r"sub holds no images \(\.bmp, "):
        ImageFolder(str(tmp_path / "sub")).images()
    with pytest.raises(ValueError, match="and the folders below it hold no images"):
        ImageFolder(str(tmp_path), recursive=True).pending()


def test_unreadable_folders_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.png", "locked/b.png")
    scandir = os.scandir

    def guarded(path: str):
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert listed(tmp_path) == ["a.png"]
    with pytest.raises(CaptionError, match=r"locked cannot be read \(Permission denied\)"):
        listed(tmp_path, recursive=True)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "pics/a.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert ImageFolder(" ~/pics ").images() == [tmp_path / "pics" / "a.png"]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'pics' is a relative path") as caught:
        ImageFolder("pics")
    assert str(caught.value).endswith(f"such as {tmp_path / 'pics'}")
    with pytest.raises(ValueError, match="No folder is given"):
        ImageFolder(" ")
    with pytest.raises(ValueError, match="names no user of this system"):
        ImageFolder("~no such user/pics")


def test_an_interrupted_run_continues(tmp_path: Path) -> None:
    fill(tmp_path, *(f"{number}.png" for number in range(12)))
    folder = ImageFolder(str(tmp_path))
    for image in folder.pending()[:5]:
        assert write_caption(image, f"number {image.stem}")
    (tmp_path / "6.txt").write_text(" \n")  # empty, so it counts as none
    (tmp_path / "7.txt").write_bytes(b"\xef\xbb\xbf\r\n")
    (tmp_path / "8.txt").write_text("by hand")
    left = [image.stem for image in folder.pending("skip")]
    assert left == ["5", "6", "7", "9", "10", "11"]
    for image in folder.pending():
        write_caption(image, f"number {image.stem}")
    assert folder.pending() == []
    texts = [caption_path(image).read_text() for image in folder.images()]
    assert texts == [f"number {n}\n" if n != 8 else "by hand" for n in range(12)]


@pytest.mark.parametrize("existing", ["overwrite", "append"])
def test_otherwise_all_images_are_pending(image: Path, existing: str) -> None:
    write_caption(image, "a cat")
    folder = ImageFolder(str(image.parent))
    assert folder.pending() == []
    assert folder.pending(existing) == [image]


def test_captions_are_named_after_images(tmp_path: Path) -> None:
    assert caption_path(tmp_path / "a.b.PNG") == tmp_path / "a.b.txt"


@pytest.mark.parametrize(
    ("existing", "expected", "written"),
    [("skip", "old", False), ("overwrite", "new\n", True), ("append", "old\nnew\n", True)],
)
def test_policies(image: Path, existing: str, expected: str, written: bool) -> None:
    caption_path(image).write_text("old")
    assert write_caption(image, " new\n", existing) is written
    assert caption_path(image).read_text() == expected


@pytest.mark.parametrize("existing", EXISTING)
def test_a_first_caption(image: Path, existing: str) -> None:
    assert write_caption(image, "größer 🐈\r\nsecond line\n", existing)
    assert caption_path(image).read_bytes() == "größer 🐈\nsecond line\n".encode()
    assert sorted(path.name for path in image.parent.iterdir()) == ["cat.png", "cat.txt"]


def test_the_same_caption_is_not_appended_twice(image: Path) -> None:
    path = caption_path(image)
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    assert not write_caption(image, "one\ntwo", "append")
    assert not write_caption(image, "two", "append")
    assert path.read_bytes() == b"\xef\xbb\xbfone\r\ntwo"
    assert write_caption(image, "on", "append")  # a part of a line is not the same
    assert path.read_bytes() == b"\xef\xbb\xbfone\r\ntwo\non\n"


@given(st.lists(st.text(st.characters(), min_size=1).filter(str.strip), max_size=4))
def test_appending_keeps_what_was_there(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    image = fill(tmp_path_factory.mktemp("append"), "a.png") / "a.png"
    before = b""
    for text in texts:
        if not text.replace("\ufeff", "").strip():
            continue
        write_caption(image, text, "append")
        after = caption_path(image).read_bytes()
        assert after.startswith(before)
        assert after.endswith(b"\n")
        assert not write_caption(image, text, "append")
        assert caption_path(image).read_bytes() == after
        before = after


def test_half_characters_become_question_marks(image: Path) -> None:
    write_caption(image, "a \ud83d cat")
    assert caption_path(image).read_text(encoding="utf-8") == "a ? cat\n"


@pytest.mark.parametrize("text", ["", " \n", "\ufeff"])
def test_empty_captions_are_refused(image: Path, text: str) -> None:
    caption_path(image).write_text("old")
    with pytest.raises(ValueError, match=r"cat\.png was given an empty caption\. Change the"):
        write_caption(image, text, "overwrite")
    assert caption_path(image).read_text() == "old"


def test_unknown_policy(image: Path) -> None:
    for call in (
        lambda: write_caption(image, "a cat", "replace"),
        lambda: ImageFolder(str(image.parent)).pending("replace"),
    ):
        with pytest.raises(ValueError, match=r"'replace'\. Choose one of skip, overwrite, append"):
            call()


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("existing", ["overwrite", "append"])
def test_a_failure_loses_nothing(
    image: Path, monkeypatch: pytest.MonkeyPatch, step: str, existing: str
) -> None:
    caption_path(image).write_text("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(CaptionError, match=r"cat\.txt cannot be written \(No space left"):
        write_caption(image, "new", existing)
    assert caption_path(image).read_text() == "old"
    assert sorted(path.name for path in image.parent.iterdir()) == ["cat.png", "cat.txt"]


def test_an_interruption_leaves_nothing_behind(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_caption(image, "new")
    assert [path.name for path in image.parent.iterdir()] == ["cat.png"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions(image: Path) -> None:
    write_caption(image, "one")
    assert caption_path(image).stat().st_mode == image.stat().st_mode  # both by the umask
    caption_path(image).chmod(0o640)
    write_caption(image, "two", "overwrite")
    assert caption_path(image).stat().st_mode & 0o777 == 0o640


def test_appending_to_another_encoding_is_refused(image: Path) -> None:
    path = caption_path(image)
    path.write_bytes("größer".encode("latin-1"))
    assert ImageFolder(str(image.parent)).pending() == []
    with pytest.raises(CaptionError, match=r"cat\.txt is not in UTF-8.* Save it as UTF-8"):
        write_caption(image, "new", "append")
    assert path.read_bytes() == "größer".encode("latin-1")


def test_large_files_are_no_captions(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caption_folder, "MAX_CAPTION_BYTES", 2**20)
    caption_path(image).write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(CaptionError, match=r"cat\.txt is larger than 1 MiB"):
        write_caption(image, "new", "overwrite")
    assert caption_path(image).stat().st_size == 2**20 + 1


def test_what_is_no_caption_file(image: Path) -> None:
    caption_path(image).mkdir()
    for existing in EXISTING:
        with pytest.raises(CaptionError, match=r"cat\.txt is no file, so no caption .* Move it"):
            write_caption(image, "new", existing)


def test_linked_captions_are_read_but_not_replaced(image: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text("old")
    caption_path(image).symlink_to(target)
    assert ImageFolder(str(tmp_path)).pending() == []
    for existing in ("overwrite", "append"):
        with pytest.raises(CaptionError, match=r"cat\.txt is a link.* Put a copy"):
            write_caption(image, "new", existing)
    assert target.read_text() == "old"
    assert caption_path(image).is_symlink()


def test_the_error_survives_pickling(image: Path) -> None:
    error = CaptionError(image, "is odd", "Repair it")
    assert str(pickle.loads(pickle.dumps(error))) == f"{image} is odd. Repair it"  # noqa: S301
