"""The sentence that says what a run waits for."""

from dataclasses import replace

import pytest

from rayclip.report.run_stats import BatchStats, RunState
from rayclip.report.stall_reason import stall_reason
from rayclip.session.resources import EncoderResources

ON_GPUS = EncoderResources(encoders=2, gpus=1, cpus=0, threads=None)
ON_CPUS = EncoderResources(encoders=1, gpus=0, cpus=6, threads=8)
FREE = {"CPU": 3.0, "memory": 2e9}
BUSY = RunState(4, 0, 40, (BatchStats(),) * 2, (640, 64), 2, 2)
CAT = ("cat.mp4", 71.6)


@pytest.mark.parametrize(
    ("state", "oldest", "resources", "sentence"),
    [
        (
            replace(BUSY, placed=0, up=0),
            CAT,
            ON_GPUS,
            "each encoder waits for 1 GPUs: 0 of the cluster's 2 are free; other runs or steps "
            "use the rest. To share a GPU, set --encoders-per-gpu and --encoders in each of them",
        ),
        (
            replace(BUSY, placed=0, up=0),
            CAT,
            ON_CPUS,
            "an encoder waits for a node with 6 free CPUs; free in the cluster: 0 GPUs, 3 CPUs",
        ),
        (
            replace(BUSY, placed=1, up=0),
            CAT,
            ON_GPUS,
            "the encoders are loading their model or restarting",
        ),
        (
            BUSY,
            None,
            ON_GPUS,
            "decoding tasks wait for a node with a free CPU and free memory; free in the cluster: "
            "0 GPUs, 3 CPUs",
        ),
        (
            BUSY,
            CAT,
            ON_GPUS,
            "cat.mp4 has been in progress for 72 s; 704 frames wait for the encoders",
        ),
        (
            replace(BUSY, waiting=(0, 0)),
            CAT,
            ON_GPUS,
            "cat.mp4 has been in progress for 72 s; it is being read or decoded",
        ),
        (
            replace(BUSY, waiting=(0, 0)),
            ("a\nb.mp4", 1.0),
            ON_GPUS,
            "'a\\nb.mp4' has been in progress for 1 s; it is being read or decoded",
        ),
    ],
)
def test_the_reason_names_what_the_run_waits_for(
    state: RunState, oldest: tuple[str, float] | None, resources: EncoderResources, sentence: str
) -> None:
    assert stall_reason(state, oldest, resources, FREE, {"GPU": 2.0}) == sentence


def test_a_cluster_without_gpus_differs_from_one_whose_gpus_are_in_use() -> None:
    reason = stall_reason(replace(BUSY, placed=0, up=0), None, ON_GPUS, FREE, FREE)
    assert reason == "the encoders wait for a node with a GPU to join; the cluster has none yet"
