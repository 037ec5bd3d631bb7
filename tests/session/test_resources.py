"""How many encoders a run gets, and what each requests of its node."""

from collections.abc import Sequence
from itertools import combinations_with_replacement

import pytest

from rayclip.errors import UsageError
from rayclip.session.resources import (
    EncoderResources,
    cpu_resources,
    gpu_resources,
    planned_tasks,
    videos_per_task,
)

NODES = [
    nodes
    for count in (1, 2, 3)
    for nodes in combinations_with_replacement((1, 2, 3, 4, 7, 8, 16, 64), count)
]


def placed(nodes: Sequence[float], each: float, count: int) -> list[float]:
    """Return what remains on each node after ``count`` actors were placed, each on the freest
    node."""
    free = list(nodes)
    for _ in range(count):
        freest = max(range(len(free)), key=free.__getitem__)
        free[freest] -= each
    return [round(cpus, 4) for cpus in free]  # as Ray counts


def name_of(nodes: Sequence[float]) -> str:
    return "+".join(map(str, nodes)) + "-cores"


# ---- GPUs ----


@pytest.mark.parametrize("gpus", [1, 2, 8])
def test_every_gpu_gets_an_encoder(gpus: int) -> None:
    assert gpu_resources(gpus, None, 1) == EncoderResources(gpus, 1.0, 0.0, None)


@pytest.mark.parametrize(("gpus", "encoders"), [(8, 3), (1, 4), (0, 2)])
def test_requested_encoders_take_a_whole_gpu_each(gpus: int, encoders: int) -> None:
    resources = gpu_resources(gpus, encoders, 1)
    assert (resources.encoders, resources.gpus) == (encoders, 1.0)


@pytest.mark.parametrize(
    ("resources", "cluster", "exceeds"),
    [
        (gpu_resources(2, None, 1), {"GPU": 2.0, "CPU": 1.0}, False),
        (gpu_resources(2, 3, 1), {"GPU": 2.0, "CPU": 1.0}, True),
        (gpu_resources(2, 2, 1), {"GPU": 2.0}, True),
        (EncoderResources(2, 0.0, 6.0, 8), {"CPU": 16.0}, False),
        (EncoderResources(1, 0.0, 0.0, 1), {}, True),
    ],
)
def test_a_cluster_must_grow_if_it_has_no_room_for_all_encoders_and_a_task(
    resources: EncoderResources, cluster: dict[str, float], exceeds: bool
) -> None:
    assert resources.exceeds(cluster) == exceeds


def test_encoders_on_gpus_have_no_threads_of_their_own() -> None:
    assert gpu_resources(1, None, 1).threads is None


@pytest.mark.parametrize("share", [1, 2, 3, 7])
def test_encoders_that_share_gpus_fit_on_each(share: int) -> None:
    resources = gpu_resources(2, None, share)
    assert resources.encoders == 2 * share
    assert resources.scaled_to([{"GPU": 1.0}, {"GPU": 1.0}]) == resources
    assert round(resources.gpus, 4) * share <= 1  # as Ray counts


# ---- steps of one pipeline ----


@pytest.mark.parametrize(
    ("steps", "gpus"),
    [([(None, 1), (None, 1)], 1), ([(None, 2), (None, 2)], 1), ([(1, 1), (None, 1)], 2)],
)
def test_steps_that_do_not_fit_on_the_gpus_together_are_refused_with_advice(
    steps: list[tuple[int | None, int]], gpus: float
) -> None:
    first, second = (gpu_resources(gpus, *step) for step in steps)
    cluster = {"GPU": float(gpus), "CPU": 4.0}
    with pytest.raises(UsageError, match=f"encoders_per_gpu=2 and encoders={gpus}"):
        second.alongside([first], cluster)
    advised = gpu_resources(gpus, int(gpus), 2)
    assert advised.alongside([advised], cluster) == advised


@pytest.mark.parametrize(
    ("steps", "gpus"), [([(1, 1), (1, 1)], 2), ([(4, 1), (2, 1)], 1), ([(1, 1), (1, 1)], 0)]
)
def test_steps_that_fit_or_wait_for_nodes_are_accepted(
    steps: list[tuple[int | None, int]], gpus: float
) -> None:
    first, second = (gpu_resources(gpus, *step) for step in steps)
    assert second.alongside([first], {"GPU": gpus, "CPU": 4.0}) == second


@pytest.mark.parametrize("nodes", NODES, ids=name_of)
def test_on_cpus_a_second_step_takes_nothing_from_decoding(nodes: tuple[int, ...]) -> None:
    first = cpu_resources(nodes, None)
    second = first.alongside([first], {"CPU": float(sum(nodes))})
    assert (second.cpus, second.threads) == (0.0, first.threads)
    assert first.alongside([gpu_resources(1, None, 1)], {"GPU": 1.0}) == first


# ---- CPUs ----


@pytest.mark.parametrize(
    ("nodes", "encoders", "cpus"),
    [
        ([2], 1, 0.5),
        ([3], 1, 2),
        ([4], 1, 3),
        ([8], 1, 6),
        ([16], 2, 6),
        ([64], 8, 6),
        ([16, 16], 4, 6),
    ],
    ids=str,
)
def test_about_every_8_cores_get_an_encoder_and_a_quarter_decodes(
    nodes: list[float], encoders: int, cpus: float
) -> None:
    resources = cpu_resources(nodes, None)
    assert (resources.encoders, resources.gpus, resources.cpus) == (encoders, 0.0, cpus)


@pytest.mark.parametrize("nodes", [[1], [1, 1]], ids=name_of)
@pytest.mark.parametrize("encoders", [None, 1, 3])
def test_encoders_on_nodes_with_one_core_request_none(
    nodes: list[float], encoders: int | None
) -> None:
    resources = cpu_resources(nodes, encoders)
    assert resources == EncoderResources(encoders or len(nodes), 0.0, 0.0, 1, encoders is None)


def test_the_user_sets_the_number_of_encoders() -> None:
    assert cpu_resources([16], 3).encoders == 3


@pytest.mark.parametrize("nodes", NODES, ids=name_of)
def test_every_encoder_has_room_on_a_node(nodes: tuple[int, ...]) -> None:
    resources = cpu_resources(nodes, None)
    assert min(placed(nodes, resources.cpus, resources.encoders)) >= 0


@pytest.mark.parametrize("nodes", NODES, ids=name_of)
def test_a_decoding_task_fits_next_to_the_encoders(nodes: tuple[int, ...]) -> None:
    resources = cpu_resources(nodes, None)
    free = placed(nodes, resources.cpus, resources.encoders)
    assert max(free) >= 1


@pytest.mark.parametrize("encoders", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "nodes", [(2,), (4,), (2, 2), (1, 1, 1), (7, 17), (8, 16), (31, 64), (1, 2, 5)], ids=name_of
)
def test_requested_encoders_fit_and_leave_room(nodes: tuple[int, ...], encoders: int) -> None:
    resources = cpu_resources(nodes, encoders)
    free = placed(nodes, resources.cpus, resources.encoders)
    assert min(free) >= 0
    assert max(free) >= 1


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (4, 4), (8, 8), (16, 8)])
def test_an_encoder_also_uses_the_cores_that_decoding_leaves_idle(
    cores: float, threads: int
) -> None:
    assert cpu_resources([cores], None).threads == threads


def test_on_two_cores_two_runs_have_an_encoder_each_and_leave_one_core_to_decode() -> None:
    assert min(placed([2], 2 * cpu_resources([2], None).cpus, 1)) >= 1


# ---- nodes that join ----


def test_a_gpu_that_joins_gets_an_encoder() -> None:
    resources = gpu_resources(1, None, 1)
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0}, {"CPU": 8.0, "GPU": 4.0}]
    assert resources.scaled_to(nodes) == EncoderResources(5, 1.0, 0.0, None)


def test_a_number_of_encoders_set_by_the_user_does_not_change() -> None:
    resources = gpu_resources(1, 2, 1)
    assert resources.scaled_to([{"GPU": 8.0}]) == resources
    assert resources.encoders == 2


@pytest.mark.parametrize("nodes", NODES, ids=name_of)
def test_scaling_to_the_same_nodes_changes_nothing(
    nodes: tuple[int, ...],
) -> None:
    resources = cpu_resources(nodes, None)
    assert resources.scaled_to([{"CPU": float(cpus)} for cpus in nodes]) == resources


def test_a_node_that_joins_gets_encoders_on_its_cpus() -> None:
    assert cpu_resources([16], None).scaled_to([{"CPU": 16.0}, {"CPU": 8.0}, {}]).encoders == 3


# ---- tasks ----


@pytest.mark.parametrize(
    ("resources", "cluster_cpus", "tasks"),
    [
        (EncoderResources(1, 1.0, 0.0, None), 16, 16),
        (EncoderResources(2, 0.0, 6.0, 8), 16, 4),
        (EncoderResources(1, 0.0, 0.0, 1), 1, 1),
        (EncoderResources(4, 0.0, 4.0, 6), 16, 1),
    ],
)
def test_decoding_tasks_take_what_the_encoders_leave_and_there_is_always_one(
    resources: EncoderResources, cluster_cpus: float, tasks: int
) -> None:
    assert resources.decoding_tasks(cluster_cpus) == tasks


@pytest.mark.parametrize(
    ("videos", "tasks_at_once", "rows"),
    [
        (1, 1, 1),
        (100, 16, 1),
        (1000, 16, 7),
        (10_000, 16, 64),
        (10_000_000, 16, 64),
        (0, 1, 1),
    ],
)
def test_a_task_gets_few_videos_of_a_short_list_and_64_of_a_long_one(
    videos: int, tasks_at_once: int, rows: int
) -> None:
    assert videos_per_task(videos, tasks_at_once) == rows


def test_a_task_that_holds_features_has_few_videos() -> None:
    assert videos_per_task(10**6, 8) == 64
    assert videos_per_task(10**6, 8, with_arrays=True) == 4
    assert videos_per_task(16, 8, with_arrays=True) == 1


def test_work_is_divided_among_more_tasks_if_the_cluster_grows() -> None:
    assert planned_tasks(1, grows=False) == 1
    assert planned_tasks(1000, grows=True) == 1000
    assert videos_per_task(400, planned_tasks(1, grows=True)) == 1
    assert videos_per_task(10**7, planned_tasks(1, grows=True)) == 64
