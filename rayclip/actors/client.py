"""A task's way to the encoders."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError, RayTaskError

from rayclip.actors.credits import Terms
from rayclip.actors.decoder import CHUNK_FRAMES
from rayclip.actors.dispatch import Answer, Dispatch
from rayclip.actors.fleet import reason_of
from rayclip.actors.pieces import Features, SmallChunk
from rayclip.errors import RunStopped

WAIT_S = 0.2  # for more frames, before few are sent
PATIENCE_S = 20.0  # after frames were sent, until a task asks whether their encoder is still there


class RemoteEncoders:
    """Where a task's frames go, in chunks as they come."""

    def __init__(self, pool: Any) -> None:
        self._dispatch = Dispatch(pool)
        self._filling: Parcel | None = None

    def submit(self, frames: NDArray[np.uint8]) -> RemoteChunk:
        """Send frames, together with those of other small chunks where they are few: each call
        costs some milliseconds of CPU, here and there.

        Few frames wait for more until :data:`WAIT_S` is over and somebody looks, or until the task
        waits for any of its features.
        """
        if self._filling is not None and not self._filling.has_room(len(frames)):
            self._filling.send()
        if self._filling is None or self._filling.is_sent:
            self._filling = Parcel(self._dispatch)
        chunk = RemoteChunk(self, self._filling, self._filling.add(frames))
        if not self._filling.has_room(1):
            self._filling.send()
        return chunk

    def wait(self, chunks: Sequence[RemoteChunk]) -> Sequence[RemoteChunk]:
        """Wait until some of these are done; gives those that are.

        Raises:
            RunStopped: no encoder is left.
        """
        parcels = {chunk.parcel for chunk in chunks}
        if not any(parcel.is_sent for parcel in parcels):
            self.send_rest()
        while not (done := [chunk for chunk in chunks if chunk.parcel.is_back]):
            sent = {parcel.answer: parcel for parcel in parcels if parcel.is_sent}
            patience_s = min(parcel.patience_s for parcel in sent.values())
            answers = self._dispatch.first_of(sent, patience_s)
            for answer in answers:
                sent[answer].take_answer()
            if not answers:
                for parcel in sent.values():
                    parcel.chase()
        return done

    def send_rest(self) -> None:
        """Send frames that wait for more, so that they fill up the batch of those before them."""
        if self._filling is not None:
            self._filling.send()


class Parcel:
    """Chunks that are with an encoder; they are sent again, from memory, if that one is lost or
    does not answer.

    Their names stay the same, so that an encoder that died of one knows it again. An answer that
    comes late does no harm: nobody looks at it then.

    Attributes:
        is_sent: whether it is on its way, or back.
        answer: what the encoder will say, once it is sent.
    """

    answer: Answer

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._begun = time.monotonic()
        self.is_sent = False
        self._frames: list[NDArray[np.uint8]] = []
        self._chunks: list[SmallChunk] = []
        self._stored: ray.ObjectRef[Any] | None = None
        self._results: list[Features | Exception] | None = None

    @property
    def is_back(self) -> bool:
        return self._results is not None

    def has_room(self, frames: int) -> bool:
        """Whether so many more fit; any number fits into an empty one."""
        there = sum(chunk.frames for chunk in self._chunks)
        return not there or there + frames <= CHUNK_FRAMES

    def add(self, frames: NDArray[np.uint8]) -> int:
        """Put a chunk to the others; its place among them."""
        self._frames.append(frames)
        self._chunks.append(SmallChunk(secrets.token_hex(8), len(frames)))
        return len(self._chunks) - 1

    def send(self) -> None:
        """Let it go, unless it is gone."""
        if self.is_sent:
            return
        one = self._frames[0] if len(self._frames) == 1 else np.concatenate(self._frames)
        self._frames.clear()
        self._stored = ray.put(one)
        self._send()
        self.is_sent = True

    def _send(self) -> None:
        assert self._stored is not None
        self._address, self.answer = self._dispatch.send(self._stored, self._chunks)
        self._trusted_s = time.monotonic()

    @property
    def patience_s(self) -> float:
        """Seconds for which its encoder is trusted to be there; from when it was sent, not from
        when somebody waits: else those that went with a lost encoder would be missed one by one."""
        return max(0.0, self._trusted_s + PATIENCE_S - time.monotonic())

    def done(self) -> bool:
        """Whether the results are here; sends it again where they will not come.

        Raises:
            RunStopped: no encoder is left.
        """
        if time.monotonic() - self._begun > WAIT_S:
            self.send()
        if self.is_sent and not self.is_back and self._dispatch.is_there(self.answer):
            self.take_answer()
        return self.is_back

    def results(self) -> list[Features | Exception]:
        """Wait for float32 ``[n, D]`` of each chunk, once it is sent, or what went wrong with it.

        Raises:
            RunStopped: no encoder is left.
        """
        while self._results is None:
            if self._dispatch.first_of([self.answer], self.patience_s):
                self.take_answer()
            else:
                self.chase()
        return self._results

    def chase(self) -> None:
        """Send it again where its time is over and its encoder is silent, while others answer.

        Raises:
            RunStopped: no encoder is left.
        """
        if self.patience_s:
            return
        if self._dispatch.is_silent(self._address):
            self._send_again()
        else:
            self._trusted_s = time.monotonic()

    def take_answer(self) -> None:
        """Take the answer, which is there; send it again where that says that none will come.

        Raises:
            RunStopped: no encoder is left.
        """
        try:
            results, terms = ray.get(self.answer.reply)
        except RayTaskError as error:
            kind = RunStopped if isinstance(error, RunStopped) else RuntimeError
            self._end([kind(reason_of(error))] * len(self._chunks))
        except RayActorError as error:
            self._dispatch.lost(self._address, error)
            self._send_again()
        except RayError:  # the answer was lost with its node
            self._send_again()
        else:
            # copies, so that the shared memory is free at once
            copies = [one if isinstance(one, Exception) else np.array(one) for one in results]
            self._end(copies, terms)

    def _send_again(self) -> None:
        self._dispatch.answered(self.answer)
        self._send()

    def _end(self, results: list[Features | Exception], terms: Terms | None = None) -> None:
        self._dispatch.answered(self.answer, terms)
        self._results = results
        self._stored = None  # the frames


@dataclass(frozen=True)
class RemoteChunk:
    """A chunk in a parcel."""

    encoders: RemoteEncoders
    parcel: Parcel
    place: int

    def done(self) -> bool:
        return self.parcel.done()

    def result(self) -> Features:
        """Wait for float32 ``[n, D]``.

        Raises:
            RuntimeError: the encoder could not encode these frames.
            RunStopped: no encoder is left.
        """
        if not self.parcel.is_back:  # the task goes on with nothing else meanwhile
            self.encoders.send_rest()
        result = self.parcel.results()[self.place]
        if isinstance(result, Exception):
            raise result
        return result
