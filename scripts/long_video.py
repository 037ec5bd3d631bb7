"""Write long videos quickly, by repeating the packets of a short one."""

from __future__ import annotations

from pathlib import Path

import av


def repeated(video: Path, to: Path, times: int) -> Path:
    """Write a video that repeats the packets of another one ``times`` times; return its path."""
    with av.open(str(video)) as once, av.open(str(to), "w") as output:
        source = once.streams.video[0]
        stream = output.add_stream_from_template(source)
        assert source.duration is not None
        for time in range(times):
            once.seek(0)
            for packet in once.demux(source):
                if packet.size:
                    assert packet.pts is not None
                    assert packet.dts is not None
                    packet.pts += time * source.duration
                    packet.dts += time * source.duration
                    packet.stream = stream
                    output.mux_one(packet)
    return to
