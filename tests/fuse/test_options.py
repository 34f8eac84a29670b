"""Mount options, what is handed to mount(2) and fusermount3, and who is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pocketxfs.cli import main
from pocketxfs.fuse import guard, helper, mounting
from pocketxfs.fuse.options import MountOptions, OptionError, split


def taken(text: str) -> MountOptions:
    options = MountOptions()
    options.take(text)
    return options


def test_defaults_are_safe() -> None:
    assert MountOptions().flags == mounting.MS_RDONLY | mounting.MS_NOSUID | mounting.MS_NODEV


def test_own_options() -> None:
    options = taken("ro,mb=8,buffers=unmapped,partition=2,fsname=disk,log=/l,lock=/k,norecovery,machine=nommu-8m")
    assert (options.memory, options.buffers, options.partition, options.fsname) == ("8M", "unmapped", 2, "disk")
    assert (options.log, options.lock, options.norecovery, options.machine) == ("/l", "/k", True, "nommu-8m")
    assert options.open_arguments()["memory"] == "8M"


def test_lklfuse_s_names() -> None:
    options = taken("type=xfs,mb=64,part=3,ro,opts=norecovery\\,nouuid\\,logbsize=256k")
    assert (options.memory, options.partition, options.norecovery) == ("64M", 3, True)
    assert taken("part=0").partition is None


def test_fstab_s_words_and_flags() -> None:
    options = taken("rw,suid,dev,noexec,noatime,_netdev,nofail,x-systemd.automount,comment=x,user,uhelper=hal")
    assert options.flags == mounting.MS_RDONLY | mounting.MS_NOEXEC | mounting.MS_NOATIME
    assert options.notes


def test_others_see_what_they_may() -> None:
    assert taken("allow_other").default_permissions
    assert not taken("ro").default_permissions


@pytest.mark.parametrize(
    "text",
    [
        "type=ext4",
        "mb=",
        "mb=x",
        "mb=-1",
        "whatever",
        "whatever=1",
        "allow_root",
        "auto_unmount",
        "opts=uquux",
        "part=a",
    ],
)
def test_refused(text: str) -> None:
    with pytest.raises(OptionError, match=text.partition("=")[0]):
        taken(text)


def test_split() -> None:
    assert split("a,b\\,c,,d\\\\e,f\\") == ["a", "b,c", "d\\e", "f\\"]


REQUEST = mounting.MountRequest("/a,b\\c", "/mnt", mounting.MS_RDONLY | mounting.MS_NODEV, True, True, 1 << 17)


def test_what_mount_is_given() -> None:
    assert mounting.mount_data(7, 0o40000, 0, 5, REQUEST) == (
        "fd=7,rootmode=40000,user_id=0,group_id=5,allow_other,default_permissions,max_read=131072"
    )


def test_what_fusermount_is_given() -> None:
    assert mounting.helper_options(REQUEST) == (
        "ro,nodev,allow_other,default_permissions,max_read=131072,subtype=pocketxfs,fsname=/a\\,b\\\\c"
    )


def test_is_direct(tmp_path: Path) -> None:
    verbs, image = ("mount", "ls"), tmp_path / "disk.img"
    image.write_bytes(b"")
    assert helper.is_direct([str(image), str(tmp_path), "-o", "ro"], verbs)
    assert helper.is_direct([str(image), str(tmp_path)], verbs)
    assert not helper.is_direct(["ls", str(tmp_path)], verbs)
    assert not helper.is_direct([str(image)], verbs)
    assert not helper.is_direct([str(image), "/no/such", "-o", "ro"], verbs)
    assert not helper.is_direct([str(tmp_path / "none"), str(tmp_path)], verbs)
    assert not helper.is_direct(["--json", str(tmp_path)], verbs)


def test_helper_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert helper.main(["only-one"]) == helper.EXIT_USAGE
    assert helper.main(["-f", "image", str(tmp_path)]) == 0  # mount(8)'s -f only pretends
    assert helper.main(["image", str(tmp_path), "-o", "nonsense"]) == helper.EXIT_USAGE
    assert helper.main([str(tmp_path / "no-image"), str(tmp_path)]) == helper.EXIT_FAILED
    assert "nonsense" in capsys.readouterr().err


def test_an_image_is_locked_once(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"")
    held = guard.lock(str(image))
    with pytest.raises(guard.Busy):
        guard.lock(str(image))
    os.close(held)
    os.close(guard.lock(str(image)))


def test_overlap() -> None:
    claims: list[guard.Claim] = [(100, 200, "mounted on /x")]
    guard.refuse_overlap("i", claims, 0, 100)
    guard.refuse_overlap("i", claims, 200, 100)
    with pytest.raises(guard.Busy, match="/x"):
        guard.refuse_overlap("i", claims, 150, 1)


def test_nothing_is_claimed_of_a_plain_file(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"")
    assert guard.kernel_claims(str(image)) == []
    assert guard.claim_device(str(image)) is None


def test_errors_come_before_the_command_returns(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In the background, too: what is no filesystem is told, with its own exit code."""
    image = tmp_path / "image"
    image.write_bytes(b"nothing here" * 1000)
    point = tmp_path / "point"
    point.mkdir()
    assert main(["mount", str(image), str(point)]) == 4
    assert main(["mount", str(image), str(tmp_path / "none")]) == 1
    assert main(["mount", str(image)]) == 2
    assert main(["mount", "-o", "bogus", str(image), str(point)]) == 2
    assert main(["umount", str(point)]) in (1, 4)
    said = capfd.readouterr().err
    assert "image" in said
    assert "bogus" in said
