"""What can be read of a process that died: at which videos it was at work."""

from __future__ import annotations

import pytest

from rayclip.actors.journal import busy_by, note_of_begin, note_of_end


def test_what_was_begun_and_not_ended_was_at_work() -> None:
    names = ["a.mp4", 'b "quoted".mp4', "c\nd.mp4", "\udcff.mp4"]
    lines = [note_of_begin(position, name) for position, name in enumerate(names)]
    lines += [
        note_of_end(0),
        "Fatal Python error: Segmentation fault",
        "",
        "Current thread 0x7f:",
    ]
    assert busy_by("\n".join(lines)) == dict(enumerate(names[1:], 1))


def test_nothing_is_at_work_once_all_is_ended() -> None:
    assert busy_by("\n".join([note_of_begin(3, "a"), note_of_end(3)])) == {}


@pytest.mark.parametrize("words", [None, "", "Fatal Python error: Aborted"])
def test_without_notes_nothing_is_known(words: str | None) -> None:
    assert busy_by(words) is None
