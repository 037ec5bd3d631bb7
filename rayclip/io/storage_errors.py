"""Classify storage errors: transient, permanent, denied, wrong credentials, or out of space.

Every storage client has its own exceptions. They are recognised without importing any client: by
the server's answer, by errno, and by the names of their classes.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from rayclip.errors import CredentialsRefused
from rayclip.io.retry import RetriesExhausted


class ErrorKind(Enum):
    """What to do about an error.

    Attributes:
        TRANSIENT: the network, or a server that is busy or down: retry.
        DENIED: no permission to read or write this file.
        CREDENTIALS: missing, wrong or expired: nothing on this storage is accessible.
        FULL: no space left.
        PERMANENT: anything else; a retry would not help.
    """

    TRANSIENT = auto()
    DENIED = auto()
    CREDENTIALS = auto()
    FULL = auto()
    PERMANENT = auto()


def _by_word(words: dict[ErrorKind, str]) -> dict[str, ErrorKind]:
    return {word: kind for kind, text in words.items() for word in text.split()}


# Error codes of S3, S3-compatible servers and Azure.
KIND_BY_CODE = _by_word(
    {
        ErrorKind.CREDENTIALS: """
            ExpiredToken ExpiredTokenException RequestExpired TokenRefreshRequired InvalidToken
            InvalidAccessKeyId InvalidClientTokenId InvalidSecurity SignatureDoesNotMatch
            RequestTimeTooSkewed AuthFailure AccountProblem NotSignedUp UnrecognizedClientException
            AuthenticationFailed InvalidAuthenticationInfo NoAuthenticationInformation
            ExpiredAuthenticationToken
            """,
        ErrorKind.TRANSIENT: """
            BadDigest IncompleteBody InternalError OperationAborted RequestLimitExceeded
            RequestTimeout ServiceUnavailable SlowDown Throttling ThrottlingException
            TooManyRequestsException XAmzContentSHA256Mismatch
            """,
        ErrorKind.FULL: "QuotaExceeded XMinioStorageFull",
    }
)
KIND_BY_STATUS = {
    **dict.fromkeys((408, 425, 429), ErrorKind.TRANSIENT),
    401: ErrorKind.CREDENTIALS,
    **dict.fromkeys((403, 407), ErrorKind.DENIED),
    **dict.fromkeys((501, 505), ErrorKind.PERMANENT),
    507: ErrorKind.FULL,
}
KIND_BY_ERRNO = {
    getattr(errno, name): kind
    for name, kind in _by_word(
        {
            ErrorKind.FULL: "ENOSPC EDQUOT",
            ErrorKind.DENIED: "EACCES EPERM EROFS",
            ErrorKind.TRANSIENT: """
                EAGAIN EBUSY ECONNABORTED ECONNREFUSED ECONNRESET EHOSTDOWN EHOSTUNREACH ENETDOWN
                ENETRESET ENETUNREACH ENOTCONN EPIPE ESTALE ETIMEDOUT
                """,
        }
    ).items()
}
# Names of exception classes or of their bases, in order of precedence: Python, aiohttp, botocore,
# requests, urllib3, google.auth, azure and paramiko.
KIND_BY_CLASS_NAME = _by_word(
    {
        ErrorKind.PERMANENT: """
            ClientConnectorCertificateError SSLCertVerificationError FileNotFoundError""",
        ErrorKind.CREDENTIALS: """
            NoCredentialsError PartialCredentialsError CredentialRetrievalError TokenRetrievalError
            SSOTokenLoadError UnauthorizedSSOTokenError ProfileNotFound RefreshError
            DefaultCredentialsError ClientAuthenticationError CredentialUnavailableError
            AuthenticationException
            """,
        ErrorKind.TRANSIENT: """
            ConnectionError TimeoutError Timeout EOFError IncompleteRead IncompleteReadError
            ClientConnectionError ClientPayloadError HTTPClientError ResponseParserError
            ProtocolError ChunkedEncodingError ContentDecodingError ChecksumError TransportError
            ServiceRequestError ServiceResponseError SSHException
            """,
        ErrorKind.DENIED: "PermissionError",
    }
)
UNKNOWN_HOST = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class ServerAnswer(NamedTuple):
    """A server's error response.

    Attributes:
        code: the storage's own error code, such as ``SlowDown``.
        status: the HTTP status.
    """

    code: str | None = None
    status: int | None = None


def classify_error(error: BaseException) -> ErrorKind:
    """Classify an error by its root cause, or by the deepest cause that is recognised."""
    chain = list(causes(error))
    if any(isinstance(link, RetriesExhausted) for link in chain):
        return ErrorKind.PERMANENT
    for link in reversed(chain):
        kind = _classify_one(link)
        if kind is not None:
            return kind
    return ErrorKind.PERMANENT


def is_transient(error: BaseException) -> bool:
    """Whether a retry may succeed."""
    return classify_error(error) is ErrorKind.TRANSIENT


def is_unexplained_refusal(error: BaseException) -> bool:
    """Whether a server refused without a reason, as S3 does if asked for a file's size."""
    answers = [_answer(link) for link in causes(error)]
    return any(
        code is not None and code.isdigit() and status in (400, 403) for code, status in answers
    )


def reason(error: BaseException) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def stop_reason(error: BaseException, place: str) -> str | None:
    """The message that ends a run if no output can be written; None if only one file is affected.

    Args:
        error: raised by the write.
        place: the destination.
    """
    kind = classify_error(error)
    if kind is ErrorKind.FULL:
        problem, remedy = f"There is no space left for {place}", "free some space"
    elif kind is ErrorKind.CREDENTIALS:
        problem, remedy = f"The credentials for {place} were refused", "renew them"
    elif kind is ErrorKind.DENIED:
        problem, remedy = f"There is no permission to write {place}", "grant it"
    else:
        return None
    return (
        f"{problem} ({reason(error)}): {remedy}, then rerun the same command; finished videos are "
        "kept."
    )


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over an error, its cause, the cause of that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _classify_one(error: BaseException) -> ErrorKind | None:
    if isinstance(error, CredentialsRefused):
        return ErrorKind.CREDENTIALS
    names = [kind.__name__ for kind in type(error).__mro__]
    code, status = _answer(error)
    if code in KIND_BY_CODE:
        return KIND_BY_CODE[code]
    if getattr(error, "retryable", False):  # set by google.auth
        return ErrorKind.TRANSIENT
    if status == 401 and "ClientResponseError" in names:  # a web server refuses this one file
        return ErrorKind.DENIED
    if status is not None:
        default = ErrorKind.TRANSIENT if status >= 500 else ErrorKind.PERMANENT
        return KIND_BY_STATUS.get(status, default)
    if isinstance(error, socket.gaierror):
        return ErrorKind.PERMANENT if error.errno in UNKNOWN_HOST else ErrorKind.TRANSIENT
    if isinstance(error, OSError) and error.errno in KIND_BY_ERRNO:
        return KIND_BY_ERRNO[error.errno]
    for name, kind in KIND_BY_CLASS_NAME.items():
        if name in names:
            return kind
    if isinstance(error, OSError) and str(error).startswith("Forbidden: "):  # gcsfs has no code
        return ErrorKind.DENIED
    return None


def _answer(error: BaseException) -> ServerAnswer:
    """The server's answer, from wherever the client's exceptions keep it."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        metadata = response.get("ResponseMetadata", {})
        return ServerAnswer(
            response.get("Error", {}).get("Code"), _number(metadata.get("HTTPStatusCode"))
        )
    status = None
    for holder in (error, response):
        status = status or _number(getattr(holder, "status", None))  # aiohttp
        status = status or _number(getattr(holder, "status_code", None))  # azure, requests
    if type(error).__name__ == "HttpError":  # gcsfs; elsewhere ``code`` means something else
        status = status or _number(getattr(error, "code", None))
    code = getattr(error, "error_code", None)  # azure
    return ServerAnswer(None if code is None else str(getattr(code, "value", code)), status)


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int | str) and str(value).isdigit() else None
