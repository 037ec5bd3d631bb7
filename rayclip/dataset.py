"""``rayclip.encode``: CLIP features as a step of anybody's Ray Data pipeline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rayclip.media.sampling import FrameChoice
from rayclip.model.models import describe
from rayclip.options import takes_options
from rayclip.settings import OPTIONS, Settings

if TYPE_CHECKING:
    import ray.data

    from rayclip.actors.encode_step import EncodeStep
    from rayclip.session.resources import EncoderResources

VIDEOS_PER_TASK = 4  # rows of a block: how many there will be in all is not known yet


@takes_options(one for one in OPTIONS.values() if one.encode)
def encode(
    ds: ray.data.Dataset,
    *,
    path_column: str = Settings.path_column,
    bytes_column: str | None = None,
    prefix: str = "",
    **options: Any,
) -> ray.data.Dataset:
    """Add the CLIP features of videos to a dataset that has one row for each video.

    Nothing is decoded before the dataset is used. The encoders start with its first task and are
    released when none was at work for 10 s. Steps of one pipeline must fit on the GPUs together;
    on CPUs they share what encoding may have.

    Args:
        ds: rows with a path, a URL or a whole encoded video, whatever else is in them.
        path_column: holds local paths, as the nodes see them, or fsspec URLs.
        bytes_column: holds encoded videos instead, such as the content of an mp4 file.
        prefix: put before the names of the columns that are added.
        {options}

    Returns:
        The dataset with all its columns and, in each row, ``clip`` (``list<fixed_size_list<float32,
        D>>``, one feature for each frame), ``timestamps_ms`` (``list<float64>``, from the
        container's start), ``fps`` (``float64``, the video's own average frame rate) and ``error``
        (``string``). Of a video that failed, the error says why and the others are null; else the
        error is null.

    Raises:
        UsageError: the arguments are wrong, or this Ray does not have the device, or not enough
            GPUs for all steps. Columns that are missing or in the way are found here if the
            dataset's schema is known, else when it is used.
    """
    settings = Settings(**options)
    from rayclip.actors.encode_step import encode_videos

    function: Any = encode_videos
    before = [step.resources for step in _steps_before(ds)]
    step = _step(settings, bytes_column or path_column, bytes_column is not None, prefix, before)
    known = ds.columns(fetch_if_missing=False)
    if known is not None:
        step.check_columns(known)
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
    before: Sequence[EncoderResources],
) -> EncodeStep:
    import ray

    from rayclip.actors.control_actor import IDLE_S, start_control_actor
    from rayclip.actors.encode_step import EncodeStep
    from rayclip.actors.encoder import EncoderSettings
    from rayclip.actors.job import ExtractionJob
    from rayclip.actors.segment_tasks import division_among
    from rayclip.session.devices import device_on_ray
    from rayclip.session.resources import tasks_to_plan_for

    spec = describe(settings.model_name, settings.weights, settings.storage_options)
    device, resources = device_on_ray(settings, private=False)
    cluster = ray.cluster_resources()
    resources = resources.beside(before, cluster)
    encoder = EncoderSettings(
        spec,
        device,
        settings.batch_size,
        resources.threads,
        settings.precision,
        settings.compile,
    )
    content = None if spec.checkpoint is None else Path(spec.checkpoint).read_bytes()
    tasks = resources.decoding_tasks(cluster.get("CPU", 1))
    tasks = tasks_to_plan_for(tasks, grows=resources.exceeds(cluster))
    job = ExtractionJob(
        n_px=spec.n_px,
        resize=settings.resize,
        choice=FrameChoice(settings.extraction_fps, settings.extraction_total),
        naming=settings.naming,
        folder=None,
        max_attempts=settings.max_attempts,
        folder_of_inputs=os.getcwd(),
        storage_options=dict(settings.storage_options),
    )
    return EncodeStep(
        job=job,
        dim=spec.dim,
        control=start_control_actor(encoder, resources, content, IDLE_S, speaks=True),
        resources=resources,
        division=division_among(tasks),
        column=column,
        holds_videos=holds_videos,
        prefix=prefix,
    )


def _steps_before(ds: ray.data.Dataset) -> list[EncodeStep]:
    """The steps of this kind that a dataset has already.

    Ray Data has no public way to look at a plan; where its own one is gone, steps do not know of
    one another, and the second waits for devices that the first has.
    """
    from rayclip.actors.encode_step import EncodeStep

    plan = getattr(ds, "_logical_plan", None)
    operators = plan.dag.post_order_iter() if plan is not None else ()
    given = [(getattr(operator, "fn_kwargs", None) or {}).get("step") for operator in operators]
    return [step for step in given if isinstance(step, EncodeStep)]
