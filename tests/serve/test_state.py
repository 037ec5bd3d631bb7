"""Addresses of states of the page."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest

from rayclip.errors import UsageError
from rayclip.serve.state import PageState, Place, parse_state

VIDEO = "0123456789abcdef"
STATE = PageState("demo", "a dog & <b>", None, None, VIDEO, "päth", 60, Place(VIDEO, 4.0 / 3))


def parameters(link: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(link).query))


@pytest.mark.parametrize(
    "state",
    [
        PageState(),
        STATE,
        PageState(like=Place(VIDEO, 0.0)),
        PageState(picture="0123456789abcdef" * 2),
    ],
)
def test_an_address_gives_its_state_again(state: PageState) -> None:
    assert parse_state(parameters(state.link())) == state


def test_another_query_keeps_the_videos_and_the_model() -> None:
    asked = parse_state(parameters(STATE.asking(like=Place(VIDEO, 1.0))))
    assert asked == PageState("demo", "", Place(VIDEO, 1.0), None, VIDEO, "päth")


@pytest.mark.parametrize(
    "values",
    [
        {"video": "../../etc/passwd"},
        {"video": VIDEO + "0"},
        {"video": VIDEO.upper()},
        {"picture": "/etc/passwd"},
        {"picture": "../" * 10 + "ab"},
        {"like": "x@1"},
        {"like": VIDEO},
        {"like": f"{VIDEO}@nan"},
        {"like": f"{VIDEO}@-1"},
        {"at": f"{VIDEO}@inf"},
        {"at": f"{VIDEO}@1e99"},
        {"top": "0"},
        {"top": "1000000"},
        {"top": "-1"},
        {"top": "x"},
        {"top": "²"},
        {"q": "a" * 1001},
    ],
)
def test_malformed_addresses_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        parse_state(values)
