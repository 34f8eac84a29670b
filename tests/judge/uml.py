"""A Linux kernel that runs as a process (user-mode Linux): the judge for V4, quotas, realtime, ascii-ci.

`run` boots `linux.uml` on this machine's own root (hostfs), mounts the image there, runs a command in the mount and
powers off.  No root needed beyond what the files ask.  Limits: one device each for data, log and realtime.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

BINARY = "linux.uml"
TIMEOUT_S = 600

_INIT = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONDONTWRITEBYTECODE=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /mnt
mkdir /mnt/xfs
result=0
{steps}
echo $result >{work}/result
sync
echo 1 >/proc/sys/kernel/sysrq
echo o >/proc/sysrq-trigger
sleep 60
"""
_STEP = """
if [ $result = 0 ]; then
  if mount -t xfs -o {options} /dev/ubda /mnt/xfs >>{work}/out 2>&1; then
    {command} >>{work}/out 2>&1
    result=$?
    cd /
    umount /mnt/xfs || result=124
  else
    dmesg | grep -i xfs | tail -5 >>{work}/out
    result=125
  fi
fi
"""

MOUNTPOINT = "/mnt/xfs"


class UmlError(Exception):
    """The kernel did not come up, could not mount, or the command failed."""


def missing() -> str | None:
    """What is lacking, or None."""
    return None if shutil.which(BINARY) else f"{BINARY} (Debian: user-mode-linux)"


class Step(NamedTuple):
    """A mount, with these options, and a command to run in it."""

    options: str
    command: Sequence[str]


def run(
    image: Path,
    steps: Sequence[Step],
    *,
    rt: Path | None = None,
    log: Path | None = None,
    memory: str = "256M",
    kill: tuple[Path, float] | None = None,
) -> str:
    """Run commands, each with the image mounted anew at `MOUNTPOINT`; what they printed.  Raises `UmlError`.

    With `kill` the whole kernel is killed so many seconds after that file has come into being.
    """
    devices = [f"ubd0={image}"]
    more = ""
    for option, path in (("rtdev", rt), ("logdev", log)):
        if path is not None:
            more += f",{option}=/dev/ubd{'abcd'[len(devices)]}"
            devices.append(f"ubd{len(devices)}={path}")
    with tempfile.TemporaryDirectory(prefix="pocketxfs-uml-") as work:
        init = Path(work, "init")
        where = shlex.quote(work)
        texts = [
            _STEP.format(options=step.options + more, work=where, command=shlex.join(step.command)) for step in steps
        ]
        init.write_text(_INIT.format(work=where, steps="".join(texts)))
        init.chmod(0o755)
        arguments = [
            BINARY, f"mem={memory}", *devices, "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw",
            f"init={init}", "con=null", "con0=null,fd:1", "quiet",
        ]  # fmt: skip
        environment = {**os.environ, "TMPDIR": work}
        with subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
            start_new_session=True,
        ) as process:  # fmt: skip
            if kill is not None:
                _kill_when_there(process, *kill)
                return ""
            try:
                console, _ = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise UmlError(f"{image}: no end after {TIMEOUT_S} s") from None
        try:
            result = int(Path(work, "result").read_text())
        except FileNotFoundError:
            raise UmlError(f"no kernel came up: {console[-2000:].decode(errors='replace')}") from None
        output = Path(work, "out").read_text(errors="replace")
        if result:
            raise UmlError(f"{image}: exit {result}: {output[-4000:]}")
        return output


def _kill_when_there(process: subprocess.Popen[bytes], marker: Path, after_s: float) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not marker.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            os.killpg(process.pid, signal.SIGKILL)
            raise UmlError(f"{marker} never came")
        time.sleep(0.005)
    time.sleep(after_s)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
