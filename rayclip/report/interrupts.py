"""Signals that end a run: the first one in order, the second one at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType

from rayclip.errors import RunStopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST_END_S = 20.0  # a signal that went to Ray's processes, too, leaves nobody to answer


class Terminated(BaseException):
    """SIGTERM, or SIGHUP of a closed terminal, so that everything is put away on the way out.

    Attributes:
        exit_status: as shells have it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_status = 128 + number


_stopped: list[RunStopped] = []  # what another thread ends the program with


def stop_program(sentence: str) -> None:
    """End the program in order from any thread, with the status of a run that stopped; without
    :func:`end_on_signals` nothing happens, for the program is somebody else's."""
    if signal.getsignal(signal.SIGTERM) is _in_order:
        _stopped.append(RunStopped(sentence))
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)  # which also ends what it waits for


def is_stopped() -> bool:
    """Whether :func:`stop_program` has ended it."""
    return bool(_stopped)


def end_on_signals() -> None:
    """Let each of :data:`SIGNALS` end the program, except those that it was started to ignore."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _in_order)


def _in_order(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        if signal.getsignal(other) is not signal.SIG_IGN:
            signal.signal(other, _at_once)
    end = threading.Timer(LONGEST_END_S, _at_once, (number, None))
    end.daemon = True
    end.start()
    if _stopped:
        raise _stopped[0]
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


def _at_once(number: int, frame: FrameType | None) -> None:
    os._exit(
        RunStopped.exit_status if _stopped else 128 + number
    )  # what a private Ray leaves, its reaper puts away
