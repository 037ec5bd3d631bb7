"""Why a Ray cluster cannot be used: checked before Ray tries for minutes, or read from its
error."""

from __future__ import annotations

import re
import socket

from rayclip.errors import UsageError

CONNECT_S = 5.0
VERSIONS = re.compile(r"^\s*(Ray|Python): (\S+)", re.MULTILINE)

TOKEN = (
    "set RAY_AUTH_MODE=token, and put the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
)
CHECK = "Check with `ray status` on its head node that it runs, and that its port is reachable"
FROM_A_NODE = (
    "run the command on a machine of the cluster, or there with `ray job submit -- rayclip "
    "extract --address auto ...`"
)


def check_reachable(address: str, source: str = "address") -> str:
    """Check that something listens at an address, and that this machine is a node of that cluster.

    Args:
        address: ``auto`` or ``host:port``.
        source: where it was given: ``address`` or ``RAY_ADDRESS``.

    Returns:
        The address, with the host and port that Ray will use.

    Raises:
        UsageError: a check failed; the sentence says what to do.
    """
    from ray._private import services

    try:
        found = services.canonicalize_bootstrap_address(address)
    except ConnectionError:
        raise UsageError(
            f"The {source} is auto, but no Ray cluster runs on this machine: start one with `ray "
            "start`, give its host:port, or use local for a private Ray."
        ) from None
    except ValueError:
        words = "auto, local, none" if source == "address" else "auto, local"
        raise UsageError(f"{source} must be {words} or host:port, not {address!r}.") from None
    if found is None:
        return address
    given = address if source == "address" else f"{source}={address}"
    name = given if address == found else f"{given} ({found})"
    host, _, port = found.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(f"No Ray cluster answers at {name}: {_reason(error)}. {CHECK}.") from error
    nodes_here = getattr(
        services, "find_node_ids", None
    )  # finds them by their processes, as Ray does
    if nodes_here is not None and not nodes_here():
        raise UsageError(f"This machine is not a node of the Ray cluster at {name}: {FROM_A_NODE}.")
    return name


def explain_connection_error(address: str, error: Exception) -> str:
    """Return the sentence for what ``ray.init`` raised."""
    text = f"{error} {error.__cause__ or ''}"
    if type(error).__name__ == "AuthenticationError" or "AuthenticationError" in text:
        return (
            f"The Ray cluster at {address} requires a token and did not get the right one: {TOKEN}."
        )
    versions = VERSIONS.findall(text)
    if "Version mismatch" in text and len(versions) == 4:
        theirs, ours = (_format_versions(dict(pair)) for pair in (versions[:2], versions[2:]))
        return (
            f"The Ray cluster at {address} has {theirs}, and this machine {ours}: install the same "
            "Ray and Python on both."
        )
    if isinstance(error, ConnectionError):
        return (
            f"What listens at {address} does not answer like a Ray cluster. {CHECK}; if the "
            f"cluster requires a token, {TOKEN}."
        )
    return f"No Ray cluster can be used at {address}: {_reason(error)}."


def _format_versions(versions: dict[str, str]) -> str:
    return f"Ray {versions.get('Ray')} with Python {versions.get('Python')}"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT_S:.0f} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
