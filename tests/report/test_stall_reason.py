"""The sentence that explains why nothing moves."""

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
    ("state", "longest", "resources", "sentence"),
    [
        (
            replace(BUSY, placed=0, up=0),
            CAT,
            ON_GPUS,
            "each encoder waits for 1 GPUs: 0 of the cluster's 2 are free, and other runs or steps "
            "use the rest. To put several on one GPU, give each of them --encoders-per-gpu and "
            "--encoders",
        ),
        (
            replace(BUSY, placed=0, up=0),
            CAT,
            ON_CPUS,
            "an encoder waits for a node with 6 CPUs free; the cluster has 0 GPUs, 3 CPUs free",
        ),
        (
            replace(BUSY, placed=1, up=0),
            CAT,
            ON_GPUS,
            "the encoders load their model or are started again",
        ),
        (
            BUSY,
            None,
            ON_GPUS,
            "decoding tasks wait for a node with 1 CPUs and memory free; the cluster has 0 GPUs, "
            "3 CPUs free",
        ),
        (BUSY, CAT, ON_GPUS, "cat.mp4 is at work for 72 s; 704 frames are with the encoders"),
        (
            replace(BUSY, waiting=(0, 0)),
            CAT,
            ON_GPUS,
            "cat.mp4 is at work for 72 s; it is read or decoded",
        ),
        (
            replace(BUSY, waiting=(0, 0)),
            ("a\nb.mp4", 1.0),
            ON_GPUS,
            "'a\\nb.mp4' is at work for 1 s; it is read or decoded",
        ),
    ],
)
def test_it_names_what_holds_the_run(
    state: RunState, longest: tuple[str, float] | None, resources: EncoderResources, sentence: str
) -> None:
    assert stall_reason(state, longest, resources, FREE, {"GPU": 2.0}) == sentence


def test_a_cluster_that_has_no_gpu_yet_is_told_from_one_whose_gpus_are_taken() -> None:
    said = stall_reason(replace(BUSY, placed=0, up=0), None, ON_GPUS, FREE, FREE)
    assert said == "the encoders wait for a node with a GPU to join the cluster, which has none yet"
