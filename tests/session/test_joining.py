"""What is reported if a cluster is missing or refuses this machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from rayclip.errors import UsageError
from rayclip.session.joining import check_reachable, explain_connection_error

MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.59.0
    Python: 3.11.7
This process on node 10.0.0.2 was started with:
    Ray: 2.60.0
    Python: 3.12.1
"""


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Yield a socket that listens on loopback, where Ray would look for it."""
    services = pytest.importorskip("ray._private.services")
    monkeypatch.setattr(services, "resolve_ip_for_localhost", lambda host: host)
    monkeypatch.setattr(services, "find_node_ids", lambda: {"a raylet"})
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def address_of(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_with_a_listener_is_accepted(listener: socket.socket) -> None:
    assert check_reachable(address_of(listener)) == address_of(listener)


def test_a_machine_outside_the_cluster_is_refused(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray._private.services.find_node_ids", set)
    with pytest.raises(
        UsageError, match=r"This machine is not a node of the Ray cluster.*ray job submit"
    ):
        check_reachable(address_of(listener))


def test_an_address_without_a_listener_is_refused_at_once(listener: socket.socket) -> None:
    address = address_of(listener)
    listener.close()
    with pytest.raises(UsageError, match=f"answers at {address}: Connection refused"):
        check_reachable(address)


def test_auto_without_any_ray_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray._private.services.find_gcs_addresses", frozenset)
    monkeypatch.setattr("ray._private.services.find_bootstrap_address", lambda _: None)
    with pytest.raises(UsageError, match=r"no Ray cluster runs on this machine.*ray start"):
        check_reachable("auto")


@pytest.mark.parametrize("address", ["cluster", "http://a:1", "a:b"])
def test_an_invalid_address_is_named(address: str) -> None:
    with pytest.raises(UsageError, match=address):
        check_reachable(address)


def test_mismatching_versions_are_both_named_in_one_sentence() -> None:
    assert explain_connection_error("10.0.0.1:6379", RuntimeError(MISMATCH)) == (
        "The Ray cluster at 10.0.0.1:6379 has Ray 2.59.0 with Python 3.11.7, and this machine Ray "
        "2.60.0 with Python 3.12.1: install the same Ray and Python on both."
    )


def test_other_errors_are_reported_in_one_line() -> None:
    said = explain_connection_error("auto", RuntimeError("It broke.\nAnd here is a long story."))
    assert said == "No Ray cluster can be used at auto: It broke."


def test_an_address_that_does_not_answer_like_ray_may_require_a_token() -> None:
    said = explain_connection_error(
        "10.0.0.1:80", ConnectionError("Failed to connect to Ray cluster")
    )
    assert said.startswith("What listens at 10.0.0.1:80 does not answer like a Ray cluster.")
    assert "RAY_AUTH_MODE=token" in said
