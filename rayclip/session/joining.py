"""Why a Ray cluster cannot be used: found out first, since Ray takes minutes, or from its error."""

from __future__ import annotations

import re
import socket

from rayclip.errors import UsageError

CONNECT_S = 5.0
VERSIONS = re.compile(r"^\s*(Ray|Python): (\S+)", re.MULTILINE)

TOKEN = (
    "set RAY_AUTH_MODE=token, and have the cluster's token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
)
LOOK = "Look with `ray status` on its head whether it runs, and whether its port can be reached"
FROM_A_NODE = (
    "run the command on a machine of the cluster, or there with `ray job submit -- rayclip "
    "extract --address auto ...`"
)


def check_reachable(address: str, source: str = "address") -> str:
    """Make sure that somebody listens at an address and that this machine belongs to a cluster.

    Args:
        address: ``auto`` or ``host:port``.
        source: where it was given: ``address`` or ``RAY_ADDRESS``.

    Returns:
        The address, with the place where Ray will look for it.

    Raises:
        UsageError: not so; the sentence says what to do.
    """
    from ray._private import services

    try:
        found = services.canonicalize_bootstrap_address(address)
    except ConnectionError:
        raise UsageError(
            f"No Ray cluster runs on this machine, so that there is none at the {source} auto: "
            "start one with `ray start`, name its host:port, or say local for a private Ray."
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
        raise UsageError(f"No Ray cluster answers at {name}: {_reason(error)}. {LOOK}.") from error
    nodes_here = getattr(services, "find_node_ids", None)  # by their processes, as Ray itself
    if nodes_here is not None and not nodes_here():
        raise UsageError(f"This machine is no node of the Ray cluster at {name}: {FROM_A_NODE}.")
    return name


def why_not_joined(address: str, error: Exception) -> str:
    """The sentence for what ``ray.init`` raised."""
    text = f"{error} {error.__cause__ or ''}"
    if type(error).__name__ == "AuthenticationError" or "AuthenticationError" in text:
        return (
            f"The Ray cluster at {address} demands a token and did not get the right one: {TOKEN}."
        )
    versions = VERSIONS.findall(text)
    if "Version mismatch" in text and len(versions) == 4:
        theirs, ours = (_versions(dict(two)) for two in (versions[:2], versions[2:]))
        return (
            f"The Ray cluster at {address} has {theirs}, and this machine {ours}: install the same "
            "Ray and Python on both."
        )
    if isinstance(error, ConnectionError):
        return (
            f"What listens at {address} does not answer as a Ray cluster does. {LOOK}; if the "
            f"cluster demands a token, {TOKEN}."
        )
    return f"No Ray cluster can be used at {address}: {_reason(error)}."


def _versions(of: dict[str, str]) -> str:
    return f"Ray {of.get('Ray')} with Python {of.get('Python')}"


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer in {CONNECT_S:.0f} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
