"""Fake hosts: namespaces of this machine, each with its own network, name, processes and /tmp.

They share the machine's processors and other files, and reach one another only over a bridge.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from run_cli import wait_until

BRIDGE = f"rc{os.getpid()}"  # at most 15 letters; two runs of the tests may be on one machine
SUBNET = f"10.213.{os.getpid() % 256}"
BRIDGE_ADDRESS = f"{SUBNET}.254"
SEPARATE = ("net", "uts", "pid", "mount")
INIT = "read"  # blocks forever; meanwhile bash reaps the orphans of its host
SETUP = """set -e
hostname {name}
ip link set lo up
ip addr add {address}/24 dev eth0
ip link set eth0 up
ip route add default via {gateway}
mount -t tmpfs tmpfs /mnt
mkdir /mnt/shared /mnt/changes /mnt/work
mount --bind {shared} /mnt/shared
mount -t overlay overlay -o lowerdir=/tmp,upperdir=/mnt/changes,workdir=/mnt/work /tmp
mount --bind /mnt/shared {shared}
mount --bind {shared}/hosts /etc/hosts
"""


@dataclass(frozen=True)
class Host:
    """Runs commands as if on another machine.

    Attributes:
        name: by which the hosts know one another.
        address: on the bridge.
        init: its first process; all others end with it.
    """

    name: str
    address: str
    init: int

    def inside(self, *words: str | Path) -> list[str]:
        """Return a command line that runs another one on this host."""
        separate = [f"--{kind}" for kind in SEPARATE]
        return ["nsenter", f"--target={self.init}", *separate, "--", *map(str, words)]

    def processes(self) -> list[int]:
        """Return the running processes that were started on this host."""
        mine = os.readlink(f"/proc/{self.init}/ns/pid")
        found = []
        for pid in psutil.pids():
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") == mine:
                    found.append(pid)
        return [pid for pid in found if pid != self.init]


def unsupported_reason() -> str | None:
    """Return why this machine cannot have such hosts; None if it can."""
    if absent := [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]:
        return f"not found: {', '.join(absent)}"
    separate = ["unshare", "--fork", *(f"--{kind}" for kind in SEPARATE), "true"]
    tried = subprocess.run(separate, capture_output=True, text=True)
    return f"namespaces are not allowed here: {tried.stderr}" if tried.returncode else None


@contextmanager
def hosts(shared: Path, *names: str) -> Iterator[list[Host]]:
    """Create hosts that know one another by name; at the end, kill whatever still runs on them.

    Args:
        shared: a folder that they share.
        names: of the hosts.
    """
    addresses = {name: f"{SUBNET}.{number}" for number, name in enumerate(names, 1)}
    lines = [f"{address} {name}" for name, address in addresses.items()]
    (shared / "hosts").write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
    with ExitStack() as stack:
        _ip(f"link add {BRIDGE} type bridge")
        stack.callback(_ip, f"link del {BRIDGE}")
        _ip(f"addr add {BRIDGE_ADDRESS}/24 dev {BRIDGE}")
        _ip(f"link set {BRIDGE} up")
        yield [
            stack.enter_context(_host(name, address, shared)) for name, address in addresses.items()
        ]


def cut_off(host: Host) -> None:
    """Block all packets to and from a host; its processes keep running."""
    _ip(f"link set {_bridge_port(host.address)} down")


def _bridge_port(address: str) -> str:
    """Return the name of a host's port on the bridge."""
    return f"{BRIDGE}-{address.rpartition('.')[2]}"


@contextmanager
def _host(name: str, address: str, shared: Path) -> Iterator[Host]:
    separate = ["--mount-proc", "--kill-child", *(f"--{kind}" for kind in SEPARATE)]
    port = _bridge_port(address)
    command = ["unshare", "--fork", *separate, "bash", "-c", INIT]
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE)
    try:
        process = psutil.Process(keeper.pid)
        wait_until(lambda: _is_bash(process.children()), f"a host {name}")
        host = Host(name, address, process.children()[0].pid)
        _ip(f"link add {port} type veth peer name eth0 netns {host.init}")
        _ip(f"link set {port} master {BRIDGE} up")
        setup = SETUP.format(name=name, address=address, gateway=BRIDGE_ADDRESS, shared=shared)
        subprocess.run(host.inside("bash", "-c", setup), check=True)
        yield host
        _ip(f"link del {port}")  # otherwise the kernel removes it only some time later
    finally:
        keeper.kill()
        keeper.communicate()


def _is_bash(children: list[psutil.Process]) -> bool:
    """Whether the first process of a host has finished its setup, with /proc and all."""
    return bool(children) and children[0].name() == "bash"


def _ip(words: str) -> None:
    ended = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
    if ended.returncode:
        raise RuntimeError(f"ip {words}: {ended.stderr.strip()}")
