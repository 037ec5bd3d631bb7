"""How storage errors are classified: each as its client library raises it."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest

from rayclip.errors import CredentialsRefused
from rayclip.io.retry import RetriesExhausted
from rayclip.io.storage_errors import (
    ErrorKind,
    classify_error,
    is_transient,
    is_unexplained_refusal,
    reason,
    stop_reason,
)


def chained(*errors: BaseException) -> BaseException:
    """The first error, caused by the second, and so on."""
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


def named(name: str, *bases: type[BaseException], **attributes: object) -> BaseException:
    """An exception with the class name of another library."""
    error = type(name, bases or (Exception,), {})(f"a {name}")
    error.__dict__.update(attributes)
    return error


def of_s3(code: str, status: int, outer: BaseException | None = None) -> BaseException:
    """An exception of s3fs, made from botocore's."""
    response = {
        "Error": {"Code": code, "Message": f"the {code}"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return chained(outer or PermissionError(code), named("ClientError", response=response))


def of_http(status: int) -> BaseException:
    return named("ClientResponseError", status=status)


def of_gcs(code: object) -> BaseException:
    return named("HttpError", code=code)


def of_azure(status: int, code: str | None = None) -> BaseException:
    return named("HttpResponseError", status_code=status, error_code=code)


def of_requests(status: int) -> BaseException:
    return named("HTTPError", OSError, response=SimpleNamespace(status_code=status))


def os_error(name: str) -> OSError:
    return OSError(getattr(errno, name), name)


MEANINGS: dict[ErrorKind, list[BaseException]] = {
    ErrorKind.TRANSIENT: [
        ConnectionResetError("gone"),
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        BrokenPipeError("gone"),
        TimeoutError(),
        asyncio.IncompleteReadError(b"", 9),
        EOFError("cut off"),
        *(os_error(name) for name in ("ETIMEDOUT", "ENETUNREACH", "ESTALE")),
        socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution"),
        *(of_http(status) for status in (408, 425, 429, 500, 502, 503, 504, 520)),
        of_s3("SlowDown", 503, os_error("EBUSY")),
        of_s3("503", 503, os_error("EBUSY")),
        of_s3("InternalError", 500, os_error("EREMOTEIO")),
        of_s3("InternalError", 200, os_error("EREMOTEIO")),
        of_s3("RequestTimeout", 400, TimeoutError()),
        of_s3("IncompleteBody", 400, os_error("EINVAL")),
        of_gcs(503),
        of_gcs("429"),
        of_azure(503, "ServerBusy"),
        of_requests(502),
        named("EndpointConnectionError", type("HTTPClientError", (Exception,), {})),
        named("ServerDisconnectedError", type("ClientConnectionError", (Exception,), {})),
        chained(named("ClientPayloadError"), named("BadHttpMessage", code=400)),
        named("ReadTimeout", type("Timeout", (OSError,), {})),
        named("RefreshError", type("GoogleAuthError", (Exception,), {}), retryable=True),
        chained(FileNotFoundError("http://x"), of_http(503)),
    ],
    ErrorKind.DENIED: [
        PermissionError(errno.EACCES, "Permission denied"),
        os_error("EROFS"),
        of_http(401),
        of_http(403),
        of_s3("AccessDenied", 403),
        of_s3("403", 403),
        of_gcs(403),
        OSError("Forbidden: bucket/a.mp4\nno access"),
        of_azure(403, "AuthorizationPermissionMismatch"),
        of_requests(403),
    ],
    ErrorKind.CREDENTIALS: [
        CredentialsRefused("read", "access_denied", "reading failed: no such key"),
        *(
            of_s3(code, status)
            for code, status in (
                ("ExpiredToken", 403),
                ("InvalidAccessKeyId", 403),
                ("SignatureDoesNotMatch", 403),
                ("RequestTimeTooSkewed", 403),
            )
        ),
        of_s3("ExpiredToken", 400, PermissionError("expired")),
        of_s3("InvalidToken", 400, os_error("EINVAL")),
        named("NoCredentialsError"),
        of_gcs(401),
        named("RefreshError", retryable=False),
        named("DefaultCredentialsError"),
        of_azure(401),
        of_azure(403, "AuthenticationFailed"),
        named("ClientAuthenticationError"),
        of_requests(401),
    ],
    ErrorKind.FULL: [
        OSError(errno.ENOSPC, "No space left on device"),
        os_error("EDQUOT"),
        of_s3("XMinioStorageFull", 507, os_error("EIO")),
        of_http(507),
    ],
    ErrorKind.PERMANENT: [
        FileNotFoundError("a.mp4"),
        IsADirectoryError(errno.EISDIR, "Is a directory"),
        os_error("EIO"),
        os_error("ENAMETOOLONG"),
        socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
        chained(named("ClientConnectorError", ConnectionError), socket.gaierror(-2, "no name")),
        named("SSLCertVerificationError", ConnectionError),
        *(of_http(status) for status in (400, 404, 410, 416, 501)),
        of_s3("NoSuchKey", 404, FileNotFoundError("k")),
        of_s3("InvalidBucketName", 400, os_error("EINVAL")),
        of_s3("405", 405, os_error("EPERM")),
        ValueError("what?"),
        chained(RetriesExhausted("tried 9 times"), ConnectionResetError("gone")),
        chained(RuntimeError("reading failed"), RetriesExhausted("tried 9 times"), TimeoutError()),
    ],
}


@pytest.mark.parametrize(
    ("error", "meaning"),
    [(error, meaning) for meaning, errors in MEANINGS.items() for error in errors],
    ids=lambda value: value.name if isinstance(value, ErrorKind) else repr(value),
)
def test_errors_are_classified(error: BaseException, meaning: ErrorKind) -> None:
    assert classify_error(error) is meaning
    assert is_transient(error) == (meaning is ErrorKind.TRANSIENT)


def test_a_cycle_of_causes_is_handled() -> None:
    first, second = RuntimeError("a"), RuntimeError("b")
    first.__cause__, second.__cause__ = second, first
    assert classify_error(first) is ErrorKind.PERMANENT


@pytest.mark.parametrize(
    ("error", "silent"),
    [
        (of_s3("403", 403), True),
        (of_s3("400", 400, os_error("EINVAL")), True),
        (of_s3("AccessDenied", 403), False),
        (of_s3("404", 404, FileNotFoundError()), False),
        (of_s3("503", 503, os_error("EBUSY")), False),
        (of_http(403), False),
        (PermissionError(errno.EACCES, "no"), False),
    ],
    ids=repr,
)
def test_a_refusal_without_a_reason_is_recognised(error: BaseException, silent: bool) -> None:
    assert is_unexplained_refusal(error) == silent


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), ["no space left for s3://b", "free"]),
        (of_s3("ExpiredToken", 403), ["credentials for s3://b were refused", "renew"]),
        (PermissionError(errno.EACCES, "denied", "x"), ["no permission to write s3://b", "grant"]),
    ],
    ids=["full", "expired", "denied"],
)
def test_an_error_of_the_whole_output_says_what_to_do(
    error: BaseException, words: list[str]
) -> None:
    sentence = stop_reason(error, "s3://b")
    assert sentence is not None
    for word in [*words, reason(error), "rerun the same command", "finished videos are kept"]:
        assert word in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("make", [ConnectionResetError, FileNotFoundError, ValueError])
def test_an_error_of_one_file_does_not_stop_the_run(make: Callable[[], BaseException]) -> None:
    assert stop_reason(make(), "s3://b") is None


def test_a_reason_is_one_line() -> None:
    assert reason(OSError("Forbidden: a\n  not  yours\n")) == "Forbidden: a not yours"
    assert reason(TimeoutError()) == "TimeoutError"
