"""``rayclip.encode``: CLIP features as a step of a Ray Data pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rayclip.model.models import CustomWeights, checkpoint_contents, describe
from rayclip.options import takes_options
from rayclip.settings import OPTIONS, Settings

if TYPE_CHECKING:
    import ray.data

    from rayclip.actors.encode_step import EncodeStep
    from rayclip.session.resources import EncoderResources

VIDEOS_PER_TASK = 4  # fixed, because the number of rows is not known yet


@takes_options(option for option in OPTIONS.values() if option.encode)
def encode(
    ds: ray.data.Dataset,
    *,
    path_column: str = Settings.path_column,
    bytes_column: str | None = None,
    prefix: str = "",
    **options: Any,
) -> ray.data.Dataset:
    """Add CLIP features to a dataset with one video per row.

    Nothing is decoded before the dataset is consumed. The encoders start with its first task and
    are released after 10 s without a task. The steps of one pipeline must fit on the GPUs together;
    on CPUs they share the CPUs that encoding may have.

    Args:
        ds: rows with a path, a URL or an encoded video, and any other columns.
        path_column: holds local paths, as the nodes see them, or fsspec URLs.
        bytes_column: holds encoded videos instead, such as the content of an mp4 file.
        prefix: of the names of the added columns.
        {options}

    Returns:
        The dataset with all its columns and, in each row, ``clip`` (``list<fixed_size_list<float32,
        D>>``, one feature per frame), ``timestamps_ms`` (``list<float64>``, from the container's
        start), ``fps`` (``float64``, the video's own average frame rate) and ``error``
        (``string``). If a video failed, the error says why and the others are null; otherwise the
        error is null. With several models, each has its own ``clip_{model_name}`` and
        ``error_{model_name}``; ``timestamps_ms`` and ``fps`` are null only if all failed.

    Raises:
        UsageError: the arguments are wrong, this Ray does not have the device, or it has too few
            GPUs for all steps. Missing or conflicting columns are reported here if the dataset's
            schema is known, otherwise when it is consumed.
    """
    settings = Settings(**options)
    from rayclip.actors.encode_step import encode_videos

    function: Any = encode_videos
    earlier = [step.resources for step in _earlier_steps(ds)]
    step = _step(settings, bytes_column or path_column, bytes_column is not None, prefix, earlier)
    columns = ds.columns(fetch_if_missing=False)
    if columns is not None:
        step.check_columns(columns)
    encoded = ds.repartition(target_num_rows_per_block=VIDEOS_PER_TASK).map_batches(
        function,
        fn_kwargs={"step": step},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        memory=step.division.memory,
        udf_modifying_row_count=False,
    )
    encoded.context.execution_no_progress_timeout_s = -1  # a long video is one quiet task
    return encoded


def _step(
    settings: Settings,
    column: str,
    holds_videos: bool,
    prefix: str,
    earlier: Sequence[EncoderResources],
) -> EncodeStep:
    import ray

    from rayclip.actors.control_actor import IDLE_S, start_control_actor
    from rayclip.actors.encode_step import EncodeStep
    from rayclip.actors.encoder import EncoderSettings
    from rayclip.actors.job import ExtractionJob
    from rayclip.actors.segment_tasks import division_for
    from rayclip.session.devices import device_on_ray
    from rayclip.session.resources import planned_tasks

    custom = CustomWeights.of(settings)
    specs = [describe(name, custom) for name in settings.model_name]
    device, resources = device_on_ray(settings, private=False)
    cluster = ray.cluster_resources()
    resources = resources.alongside(earlier, cluster)
    models = [EncoderSettings.of(settings, spec, device, resources.threads) for spec in specs]
    contents = checkpoint_contents(specs)
    tasks = resources.decoding_tasks(cluster.get("CPU", 1))
    tasks = planned_tasks(tasks, grows=resources.exceeds(cluster))
    return EncodeStep(
        job=ExtractionJob.of(settings, specs),
        dims=[spec.dim for spec in specs],
        control=start_control_actor(models, resources, contents, IDLE_S, announces_stalls=True),
        resources=resources,
        division=division_for(tasks),
        column=column,
        holds_videos=holds_videos,
        prefix=prefix,
    )


def _earlier_steps(ds: ray.data.Dataset) -> list[EncodeStep]:
    """Return the encode steps that a dataset already has.

    Ray Data has no public way to inspect a plan. If its private one disappears, steps do not know
    of one another, and the second waits for devices that the first holds.
    """
    from rayclip.actors.encode_step import EncodeStep

    plan = getattr(ds, "_logical_plan", None)
    operators = plan.dag.post_order_iter() if plan is not None else ()
    steps = [(getattr(operator, "fn_kwargs", None) or {}).get("step") for operator in operators]
    return [step for step in steps if isinstance(step, EncodeStep)]
