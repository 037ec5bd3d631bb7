"""libav's filters, for single frames."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

import av
import av.filter

Filter = tuple[str, str]
"""The name of a libav filter and its arguments."""


def filtered(frame: av.VideoFrame, filters: Iterable[Filter]) -> av.VideoFrame:
    """Apply filters to a frame, one after the other."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1)
    )
    nodes = [graph.add(name, arguments) for name, arguments in filters]
    graph.link_nodes(source, *nodes, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()
