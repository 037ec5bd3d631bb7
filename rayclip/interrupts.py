"""Handle termination signals: the first ends the program cleanly, the second immediately."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from types import FrameType, ModuleType
from typing import Any

from rayclip.errors import RunStopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAX_END_S = 20.0  # Ray's processes may have got the signal, too, and not respond
RERAISE_DELAY_S = 0.02
INTERRUPTED = 130


class Terminated(BaseException):
    """SIGTERM, or SIGHUP of a closed terminal, as an exception, so that cleanup code runs.

    Attributes:
        exit_status: 128 + signal number, as in shells.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_status = 128 + number


Ending = KeyboardInterrupt | Terminated | RunStopped


class _Program:
    """How this program ends.

    Attributes:
        stopped: the exception with which another thread ends it.
        ending: the exception raised at the first signal; None before.
    """

    stopped: RunStopped | None = None
    ending: Ending | None = None


def end_on_signals() -> None:
    """Let :data:`SIGNALS` end the program, except those that it inherited as ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_in_order)
    sys.unraisablehook = _reraise_later
    sys.excepthook = _print_exception


def stop_program(sentence: str) -> None:
    """End the program cleanly from any thread, with the exit status of :class:`RunStopped`.

    Does nothing without :func:`end_on_signals`, since the program is then the caller's.
    """
    if signal.getsignal(signal.SIGTERM) is _end_in_order:
        _Program.stopped = RunStopped(sentence)
        _signal_main_thread(signal.SIGTERM)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defer a first signal until the end of the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler in (_end_in_order, signal.default_int_handler):
            signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def ignore_signals() -> None:
    """Ignore signals from now on, when all work is done."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def ending_status() -> int | None:
    """Return the exit status after the first signal; None before it."""
    ending = _Program.ending
    if ending is None:
        return None
    return INTERRUPTED if isinstance(ending, KeyboardInterrupt) else ending.exit_status


def import_uninterrupted(name: str) -> ModuleType:
    """Import a module on another thread, which signals cannot interrupt.

    An interrupted import leaves a partial module, and torch cannot be imported a second time in a
    process.

    Raises:
        ImportError: it cannot be imported.
    """
    if name not in sys.modules:
        thread = threading.Thread(
            target=_try_import, args=(name,), name=f"import-{name}", daemon=True
        )
        thread.start()
        thread.join()
    return import_module(name)


def _try_import(name: str) -> None:
    with suppress(ImportError):  # the waiting thread raises it again
        import_module(name)


def _end_in_order(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        if signal.getsignal(other) is not signal.SIG_IGN:
            signal.signal(other, _end_at_once)
    end = threading.Timer(MAX_END_S, _end_at_once, (number, None))
    end.daemon = True
    end.start()
    if _Program.stopped is not None:
        _Program.ending = _Program.stopped
    else:
        _Program.ending = KeyboardInterrupt() if number == signal.SIGINT else Terminated(number)
    raise _Program.ending


def _end_at_once(number: int, frame: FrameType | None) -> None:
    # the reaper of a private Ray cleans up after it
    os._exit(ending_status() or 128 + number)


def _reraise_later(unraisable: Any) -> None:
    """Raise an ending again shortly after Python ignored it in a callback such as ``__del__``."""
    if unraisable.exc_value is None or unraisable.exc_value is not _Program.ending:
        sys.__unraisablehook__(unraisable)
        return
    signal.signal(signal.SIGALRM, _reraise)
    signal.setitimer(signal.ITIMER_REAL, RERAISE_DELAY_S)


def _print_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print no traceback for an ending: Cython prints exceptions of libav's callbacks before it
    calls the other hook."""
    if error is not _Program.ending:
        sys.__excepthook__(kind, error, trace)


def _reraise(number: int, frame: FrameType | None) -> None:
    assert _Program.ending is not None
    raise _Program.ending


def _signal_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)  # also interrupts a blocking call there
