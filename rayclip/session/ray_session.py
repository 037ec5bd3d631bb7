"""Which Ray a run uses: the connected one, a cluster, or a private one that the run shuts down."""

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
from rayclip.session.joining import check_reachable, explain_connection_error
from rayclip.session.ray_watch import Watch
from rayclip.session.reaper import reaped

PRIVATE = "local"  # the address of a private Ray
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
MAX_PARENT = 24  # bytes: a socket's path is limited to 107, and Ray's names in it take 64
# By default, Ray takes 40 s if nothing answers, and 20 attempts if access is denied. It reads the
# second variable when it is imported.
FAIL_FAST = {"RAY_gcs_server_port_wait_time_s": "1", "RAY_py_gcs_connect_timeout_s": "10"}

_is_on_loopback = False  # whether ray was imported with LOOPBACK_ONLY set, which it never rereads


@contextmanager
def ray_session(address: str | None, device: str | None, verbose: bool) -> Iterator[bool]:
    """Connect to Ray for the duration of the block.

    Args:
        address: as in :class:`rayclip.settings.Settings`, but not ``none``; ``local`` is a private
            Ray, unlike what Ray itself means by that word. None is the connected Ray, or
            RAY_ADDRESS.
        device: ``cuda:N`` makes that GPU the only one that a private Ray sees.
        verbose: show Ray's own messages.

    Yields:
        Whether this Ray is private; only a private one is shut down at the end.

    Raises:
        UsageError: no Ray answers at the address, or a private one cannot be kept private or has no
            place for its files.
        RunStopped: a private one does not start.
    """
    connected = is_connected()
    source = "address"
    if address is None and not connected:
        source, address = "RAY_ADDRESS", os.environ["RAY_ADDRESS"]
    if connected and address == PRIVATE:
        raise UsageError(
            "address local means a private Ray, but this process is already connected to a Ray: "
            "leave out the address to use that one, or call ray.shutdown() first."
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
            ray.shutdown()  # closes only our connection: the cluster is not ours


def is_connected() -> bool:
    """Whether this process is connected to a Ray; ray is not imported for that."""
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
    with _environment(FAIL_FAST):
        import ray

        name = check_reachable(address, source)
        try:
            with _our_signal_handlers():
                ray.init(address=address, **_quiet_options(verbose))
        except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError) as error:
            ray.shutdown()  # it may be partly connected
            raise UsageError(explain_connection_error(name, error)) from error


@lru_cache
def _token() -> str:
    """Return one token for all private Rays of this process: Ray keeps the first that it sees."""
    return secrets.token_hex(32)


@contextmanager
def _private_ray(device: str | None, verbose: bool) -> Iterator[None]:
    """Start a Ray that only this machine and user can reach, and that leaves nothing behind."""
    global _is_on_loopback
    if "ray" in sys.modules and not _is_on_loopback and os.environ.get(LOOPBACK_ONLY) != "0":
        raise UsageError(
            "ray was imported before rayclip could keep its private Ray off the network: "
            f"call ray.init() yourself first, set {LOOPBACK_ONLY}=0 before ray is imported, "
            "or use address='none'."
        )
    environment = {
        LOOPBACK_ONLY: "0",  # listen on 127.0.0.1; read when ray is imported
        "RAY_AUTH_MODE": "token",  # our own token: otherwise Ray leaves one in ~/.ray
        "RAY_AUTH_TOKEN": _token(),
    }
    if device is not None and device.startswith("cuda:"):
        number = int(device.removeprefix("cuda:"))
        environment[VISIBLE_GPUS] = nth_gpu(number, os.environ.get(VISIBLE_GPUS))
    environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"  # otherwise `uv run` uploads this folder
    folder = _temporary_folder()
    # No usage statistics. Ray Data reads this as well, and starts one process less.
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
            except Exception as error:  # Ray raises bare exceptions
                ray.shutdown()  # it may be partly started
                raise RunStopped(_start_error(error)) from error
        watch = Watch(folder)
        try:
            with watch:
                yield
        finally:
            if watch.lost is None:  # otherwise nothing would answer
                with deferred_signals():  # an exception inside Ray's compiled code may abort
                    ray.shutdown()


def _temporary_folder() -> str:
    """Create a folder whose path is short enough for the sockets in it.

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
        "A private Ray needs a folder with a short path for its sockets, but neither /tmp nor "
        f"TMPDIR is writable and at most {MAX_PARENT} bytes long: set TMPDIR to such a folder, or "
        "use --address none."
    )


def nth_gpu(number: int, visible: str | None) -> str:
    """Return the value of ``CUDA_VISIBLE_DEVICES`` that makes one GPU the only visible one.

    Args:
        number: among the GPUs that are visible now, as torch counts them.
        visible: the current value; None if it is not set.

    Returns:
        Empty if there is no GPU with that number.
    """
    if visible is None:
        return str(number)
    names = visible.split(",")
    return names[number].strip() if number < len(names) else ""


def _start_error(error: Exception) -> str:
    message = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return (
        f"No private Ray could start here: {message}. If this machine is very busy or short of "
        "memory, rerun the same command later, or with --address none, which needs no Ray."
    )


def _quiet_options(verbose: bool) -> dict[str, Any]:
    if verbose:
        return {}
    return {"log_to_driver": False, "logging_level": "ERROR"}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the duration of the block: a later ``ray start`` must not inherit them."""
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
    """Restore the SIGTERM handler that ``ray.init`` replaces by its own, which exits with status
    15, and pass on a signal that arrived meanwhile.

    Python discards such an exit in some places, such as callbacks, and prints it; a wakeup file
    descriptor gets the number of every signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    arrived, wakeup = os.pipe()
    os.set_blocking(arrived, False)
    os.set_blocking(wakeup, False)
    wakeup_before = signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    hook_before = sys.unraisablehook

    def print_others(unraisable: Any) -> None:
        if not _is_rays_exit(unraisable.exc_value):
            hook_before(unraisable)

    sys.unraisablehook = print_others
    try:
        yield
    except SystemExit as end:
        if not _is_rays_exit(end):
            raise
    finally:
        sys.unraisablehook = hook_before
        signal.set_wakeup_fd(wakeup_before)
        signal.signal(signal.SIGTERM, before)
        os.close(wakeup)
        with open(arrived, "rb", buffering=0) as numbers:
            is_pending = signal.SIGTERM in (numbers.read() or b"")
    if is_pending:
        signal.raise_signal(signal.SIGTERM)


def _is_rays_exit(error: BaseException | None) -> bool:
    """Whether this is how Ray's handler of SIGTERM exits."""
    return isinstance(error, SystemExit) and error.code == signal.SIGTERM
