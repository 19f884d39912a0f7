from __future__ import annotations

import os
from pathlib import Path

import pytest

from ctxkit.documents import Skipped, discover


def names(found) -> list[str]:
    return [path.relative_to(found.root).as_posix() for path in found.files]


def reasons(found) -> dict[str, str]:
    return {os.path.relpath(skipped.path, found.root): skipped.reason for skipped in found.skipped}


def test_folders_are_walked_in_sorted_order_without_hidden_ones(write, tmp_path):
    for name in ("b.md", "a/z.txt", "a/b/c.py", ".hidden", ".git/x.txt", "node_modules/y.js", "a/__pycache__/z.txt"):
        write(name, "x")
    found = discover(tmp_path)
    assert names(found) == ["a/b/c.py", "a/z.txt", "b.md"]
    assert found.skipped == ()
    assert found.root == tmp_path


def test_each_bad_file_gives_one_reason_and_the_rest_is_read(write, tmp_path):
    write("good.txt", "x")
    write("empty.md", b"")
    write("image.png", b"x")
    write("data.xyz", b"\x00\x01\x02")
    write("latin.xyz", b"caf\xe9 au lait")
    write("notes", "täxt " * 3000)
    os.mkfifo(tmp_path / "pipe")
    found = discover([tmp_path, tmp_path / "missing"])
    assert names(found) == ["good.txt", "notes"]
    assert reasons(found) == {
        "data.xyz": "binary file",
        "empty.md": "empty file",
        "image.png": "binary file (.png)",
        "latin.xyz": "binary file",
        "missing": "no such file or folder",
        "pipe": "not a regular file",
    }


def test_a_large_file_is_skipped_with_its_size(tmp_path):
    with (tmp_path / "big.txt").open("wb") as file:
        file.truncate(200_000_000)
    assert discover(tmp_path).skipped == (
        Skipped(str(tmp_path / "big.txt"), "too large: 200,000,000 bytes, the limit is 50,000,000 bytes"),
    )
    assert discover(tmp_path, max_bytes=200_000_000).skipped == ()


def test_a_link_to_a_folder_above_gives_one_line(write, tmp_path):
    write("a/x.txt", "x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "ring1").symlink_to(tmp_path / "ring2")
    (tmp_path / "ring2").symlink_to(tmp_path / "ring1")
    found = discover(tmp_path)
    assert names(found) == ["a/x.txt"]
    assert reasons(found) == {
        "a/up": f"link loop: leads back to {tmp_path}",
        "ring1": "link loop: leads back to itself",
        "self": "link loop: leads back to itself",
    }


def test_folders_that_link_to_each_other_are_walked_once(write, tmp_path):
    write("a/x.txt", "x")
    write("b/y.txt", "y")
    (tmp_path / "a" / "b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "a").symlink_to(tmp_path / "a")
    assert names(discover(tmp_path)) == ["a/x.txt", "b/y.txt"]


def test_a_link_that_leaves_the_folder_is_skipped_and_a_dead_one_too(write, tmp_path):
    write("outside.txt", "x")
    write("in/a.txt", "x")
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "outside.txt")
    (tmp_path / "in" / "dead").symlink_to("nowhere")
    found = discover(tmp_path / "in")
    assert names(found) == ["a.txt"]
    assert reasons(found)["link.txt"].startswith("link leaves the folder")
    assert reasons(found)["dead"].startswith("broken link")


def test_a_file_reached_twice_is_read_once_by_its_real_name(write, tmp_path):
    write("z/real.txt", "x")
    (tmp_path / "a.txt").symlink_to("z/real.txt")
    assert names(discover([tmp_path, tmp_path / "z", tmp_path / "z" / "real.txt"])) == ["z/real.txt"]


def test_a_path_named_by_the_caller_is_read_even_if_hidden_or_a_link(write, tmp_path):
    write(".hidden/a.txt", "x")
    (tmp_path / "link").symlink_to(tmp_path / ".hidden")
    assert names(discover(tmp_path / ".hidden")) == ["a.txt"]
    assert len(discover(tmp_path / "link").files) == 1


def test_several_folders_share_one_root_so_that_names_differ(write, tmp_path):
    write("a/readme.md", "x")
    write("b/readme.md", "x")
    found = discover([tmp_path / "b", tmp_path / "a"])
    assert found.root == tmp_path
    assert names(found) == ["a/readme.md", "b/readme.md"]


def test_a_single_file_has_its_folder_as_root(write, tmp_path):
    assert discover(str(write("a/b.txt", "x"))).root == tmp_path / "a"


def test_no_permission_gives_a_reason(write, tmp_path, monkeypatch):
    write("a.txt", "x")
    write("b/c.txt", "x")
    plain_open, plain_scan = Path.open, os.scandir

    def denied_open(self, *args, **options):
        if self.name == "a.txt":
            raise PermissionError(13, "Permission denied")
        return plain_open(self, *args, **options)

    def denied_scan(path):
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied")
        return plain_scan(path)

    monkeypatch.setattr(Path, "open", denied_open)
    monkeypatch.setattr(os, "scandir", denied_scan)
    found = discover(tmp_path)
    assert reasons(found) == dict.fromkeys(("a.txt", "b"), "cannot be read: permission denied")


@pytest.mark.skipif(os.sep != "/", reason="file names are bytes only there")
def test_a_name_that_is_not_utf8_gives_a_reason(tmp_path):
    with open(os.fsencode(tmp_path) + b"/caf\xe9.txt", "wb") as file:
        file.write(b"x")
    (skipped,) = discover(tmp_path).skipped
    assert skipped == Skipped(f"{tmp_path}/caf\\xe9.txt", "file name is not UTF-8")
