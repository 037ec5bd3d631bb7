"""Which Ray a run uses: the connected one, a cluster, or a private one that is ours to end."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from rayclip.errors import RunStopped, UsageError
from rayclip.interrupts import deferred_signals
from rayclip.session.joining import check_reachable, why_not_joined
from rayclip.session.ray_watch import Watch
from rayclip.session.reaper import reaped

PRIVATE = "local"  # the address of a private Ray
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
MAX_PARENT = 24  # bytes: a socket's path has 107 at most, and Ray's names in it take 64
# Ray takes 40 s to find out that nobody answers, and 20 tries to find out that it may not get in.
# The second of these is read when ray is imported.
IMPATIENT = {"RAY_gcs_server_port_wait_time_s": "1", "RAY_py_gcs_connect_timeout_s": "10"}

_is_on_loopback = False  # whether ray was imported here, to stay there


@contextmanager
def ray_session(address: str | None, device: str | None, verbose: bool) -> Iterator[bool]:
    """Connect to Ray for the length of the block.

    Args:
        address: as in :class:`rayclip.settings.Settings`, but not ``none``; ``local`` is a private
            one, never what Ray means by that word.
        device: ``cuda:N`` makes that GPU the only one that a private Ray sees.
        verbose: let Ray's own messages through.

    Yields:
        Whether this Ray is private; only such a one is shut down at the end.

    Raises:
        UsageError: no Ray answers at the address, or a private one cannot be kept private, or has
            no place for its files.
        RunStopped: a private one does not start.
    """
    connected = _is_connected()
    source = "address"
    if address is None and not connected:
        source, address = "RAY_ADDRESS", os.environ.get("RAY_ADDRESS") or PRIVATE
    if connected and address == PRIVATE:
        raise UsageError(
            "address local asks for a private Ray, but this process is connected to a Ray already: "
            "leave the address out to use that, or call ray.shutdown() first."
        )
    if connected:
        yield False
    elif address == PRIVATE:
        with _private_ray(device, verbose):
            yield True
    else:
        assert address is not None
        _connect(address, source, verbose)
        import ray

        try:
            yield False
        finally:
            ray.shutdown()  # only this process's connection: the cluster is not ours


def _is_connected() -> bool:
    if "ray" not in sys.modules:
        return False
    import ray

    return bool(ray.is_initialized())


def _connect(address: str, source: str, verbose: bool) -> None:
    if address.startswith("ray://"):
        raise UsageError(
            f"{source} is a ray:// address (Ray Client), which is not supported: use "
            "`ray job submit -- rayclip extract --address auto ...`."
        )
    with _environment(IMPATIENT):
        import ray

        name = check_reachable(address, source)
        try:
            with _our_signal_handlers():
                ray.init(address=address, **_quiet_options(verbose))
        except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
            ray.shutdown()  # it may be half connected
            raise UsageError(why_not_joined(name, error)) from error


@lru_cache
def _token() -> str:
    """One for all private Rays of this process: Ray keeps the first that it sees."""
    return secrets.token_hex(32)


@contextmanager
def _private_ray(device: str | None, verbose: bool) -> Iterator[None]:
    """A Ray that only this machine and this user can reach, and that leaves nothing behind."""
    global _is_on_loopback
    if "ray" in sys.modules and not _is_on_loopback and os.environ.get(LOOPBACK_ONLY) != "0":
        raise UsageError(
            "ray was imported before rayclip could keep its private Ray off the network: "
            f"call ray.init() yourself first, set {LOOPBACK_ONLY}=0 before ray is imported, "
            "or use address='none'."
        )
    environment = {
        LOOPBACK_ONLY: "0",  # listen on 127.0.0.1; read when ray is imported
        "RAY_AUTH_MODE": "token",  # a token of our own, else Ray leaves one in ~/.ray
        "RAY_AUTH_TOKEN": _token(),
    }
    if device is not None and device.startswith("cuda:"):
        number = int(device.removeprefix("cuda:"))
        environment[VISIBLE_GPUS] = nth_gpu(number, os.environ.get(VISIBLE_GPUS))
    environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # else `uv run` uploads the working folder
    folder = _temporary_folder()
    # Nothing is told to Ray's authors; Ray Data looks, too, and has a process less.
    with reaped(folder), _environment({"RAY_USAGE_STATS_ENABLED": "0"}):
        with _environment(environment):
            import ray

            _is_on_loopback = True
            try:
                with _our_signal_handlers():
                    ray.init(
                        address="local",
                        include_dashboard=False,
                        _temp_dir=folder,
                        **_quiet_options(verbose),
                    )
            except Exception as error:  # Ray's own are of no class in particular
                ray.shutdown()  # it may be half started
                raise RunStopped(_why_none_started(error)) from error
        watch = Watch(folder)
        try:
            with watch:
                yield
        finally:
            if watch.lost is None:  # else nobody answers
                with deferred_signals():  # an exception inside Ray's compiled code may abort
                    ray.shutdown()


def _temporary_folder() -> str:
    """A new folder whose name is short enough for the sockets in it.

    Raises:
        UsageError: there is no place for one.
    """
    for parent in ("/tmp", tempfile.gettempdir()):
        if len(os.fsencode(parent)) > MAX_PARENT:
            continue
        try:
            return tempfile.mkdtemp(prefix="rayclip-", dir=parent)
        except OSError:
            continue
    raise UsageError(
        "A private Ray needs a folder with a short name for its sockets: neither /tmp nor TMPDIR "
        f"is one that can be written and has at most {MAX_PARENT} bytes. Set TMPDIR to such a "
        "folder, or use --address none."
    )


def nth_gpu(number: int, visible: str | None) -> str:
    """What makes one GPU the only one that is seen.

    Args:
        number: among those that are seen now, as torch counts them.
        visible: ``CUDA_VISIBLE_DEVICES`` as it is; None where it is not set.

    Returns:
        The same for that GPU; empty where there is none of that number.
    """
    if visible is None:
        return str(number)
    names = visible.split(",")
    return names[number].strip() if number < len(names) else ""


def _why_none_started(error: Exception) -> str:
    said = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return (
        f"No private Ray could start here: {said}. If this machine is very busy or short of "
        "memory, give the same command again when it is not; --address none needs no Ray."
    )


def _quiet_options(verbose: bool) -> dict[str, Any]:
    if verbose:
        return {}
    return {"log_to_driver": False, "logging_level": "ERROR"}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the length of the block: a later ``ray start`` must not inherit them."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _our_signal_handlers() -> Iterator[None]:
    """``ray.init`` puts its own handler on SIGTERM, which exits with status 15; put back what was
    there, and let that have a signal that came meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    has_come = False
    try:
        yield
    except SystemExit as end:
        has_come = end.code == signal.SIGTERM
        if not has_come:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if has_come:
        signal.raise_signal(signal.SIGTERM)
