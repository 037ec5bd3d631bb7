"""Signals that end a program: the first one in order, the second one at once."""

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
MAX_END_S = 20.0  # a signal that went to Ray's processes, too, leaves nobody to answer
RERAISE_DELAY_S = 0.02
INTERRUPTED = 130


class Terminated(BaseException):
    """SIGTERM, or SIGHUP of a closed terminal, so that everything is put away on the way out.

    Attributes:
        exit_status: as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_status = 128 + number


Ending = KeyboardInterrupt | Terminated | RunStopped


class _Program:
    """What is known of the end of this program.

    Attributes:
        stopped: what another thread ends it with.
        ending: what was raised at the first signal; None before.
    """

    stopped: RunStopped | None = None
    ending: Ending | None = None


def end_on_signals() -> None:
    """Let each of :data:`SIGNALS` end the program, except those that it was started to ignore."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end_in_order)
    sys.unraisablehook = _reraise_later
    sys.excepthook = _print_exception


def stop_program(sentence: str) -> None:
    """End the program in order from any thread, with the status of a run that stopped; without
    :func:`end_on_signals` nothing happens, for the program is somebody else's."""
    if signal.getsignal(signal.SIGTERM) is _end_in_order:
        _Program.stopped = RunStopped(sentence)
        _signal_main_thread(signal.SIGTERM)


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Let a first signal that comes inside the block end the program after it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler in (_end_in_order, signal.default_int_handler):
            signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])


def ignore_signals() -> None:
    """From now on, when all is done, it is too late for them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def ending_status() -> int | None:
    """The exit status that the first signal asks for; None before it."""
    ending = _Program.ending
    if ending is None:
        return None
    return INTERRUPTED if isinstance(ending, KeyboardInterrupt) else ending.exit_status


def import_uninterrupted(name: str) -> ModuleType:
    """Import a module on a thread of its own: an interrupt in the middle would leave half of it,
    and torch cannot be imported again in the same process.

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
    with suppress(ImportError):  # whoever waits for it sees why
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
    # what a private Ray leaves, its reaper puts away
    os._exit(ending_status() or 128 + number)


def _reraise_later(unraisable: Any) -> None:
    """Where Python ignores what a callback raises, such as ``__del__``, raise it a moment later."""
    if unraisable.exc_value is None or unraisable.exc_value is not _Program.ending:
        sys.__unraisablehook__(unraisable)
        return
    signal.signal(signal.SIGALRM, _reraise)
    signal.setitimer(signal.ITIMER_REAL, RERAISE_DELAY_S)


def _print_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Print no traceback of an ending: Cython prints what a callback of libav raises before it
    calls the other hook."""
    if error is not _Program.ending:
        sys.__excepthook__(kind, error, trace)


def _reraise(number: int, frame: FrameType | None) -> None:
    assert _Program.ending is not None
    raise _Program.ending


def _signal_main_thread(number: int) -> None:
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)  # which also ends what it waits for
