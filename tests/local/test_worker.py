"""The worker process of a run without Ray, on threads of this process."""

from __future__ import annotations

from run_cli import DEADLINE_S, WorkerThread

from rayclip.actors.encoder import EncoderSettings
from rayclip.local.messages import Loaded, LoadModel, Report, Started
from rayclip.model.models import describe
from rayclip.settings import Settings


def test_progress_is_reported_while_no_task_ends() -> None:
    worker = WorkerThread()
    worker.start()
    try:
        assert isinstance(worker.receive(), Started)
        encoder = EncoderSettings.of(Settings(), describe("demo"), "cpu", 1)
        worker.send(LoadModel([[encoder]], cores=1, tasks=1))
        while not isinstance(worker.receive(), Loaded):
            pass
        assert worker._connection.poll(DEADLINE_S), "nothing was reported"
        assert isinstance(worker.receive(), Report)
    finally:
        worker.kill()
