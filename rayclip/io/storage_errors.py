"""What an error of a storage means for a run.

Every storage has exceptions of its own. They are recognised without importing any storage: by what
its server answered, by errno, and by the names of their classes.
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
        TRANSIENT: the network, or a server that is busy or down: try again.
        DENIED: this may not be read or written.
        CREDENTIALS: they are missing, wrong or expired: nothing of this storage can be had.
        FULL: there is no space left.
        PERMANENT: anything else; trying again would change nothing.
    """

    TRANSIENT = auto()
    DENIED = auto()
    CREDENTIALS = auto()
    FULL = auto()
    PERMANENT = auto()


def _each(words: dict[ErrorKind, str]) -> dict[str, ErrorKind]:
    return {word: fault for fault, text in words.items() for word in text.split()}


# What servers answer, besides a status: S3, its look-alikes, and Azure.
CODES = _each(
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
STATUSES = {
    **dict.fromkeys((408, 425, 429), ErrorKind.TRANSIENT),
    401: ErrorKind.CREDENTIALS,
    **dict.fromkeys((403, 407), ErrorKind.DENIED),
    **dict.fromkeys((501, 505), ErrorKind.PERMANENT),
    507: ErrorKind.FULL,
}
ERRNOS = {
    getattr(errno, name): fault
    for name, fault in _each(
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
# What a class or one of its bases is called, the most telling first: classes of Python, aiohttp,
# botocore, requests, urllib3, google.auth, azure and paramiko.
NAMES = _each(
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


class Answer(NamedTuple):
    """What a server said.

    Attributes:
        code: its own word for what is wrong.
        status: the number of HTTP.
    """

    code: str | None = None
    status: int | None = None


def kind_of(error: BaseException) -> ErrorKind:
    """What an error means, by what caused it first."""
    chain = list(_causes(error))
    if any(isinstance(link, RetriesExhausted) for link in chain):
        return ErrorKind.PERMANENT
    for link in reversed(chain):
        fault = _fault(link)
        if fault is not None:
            return fault
    return ErrorKind.PERMANENT


def is_transient(error: BaseException) -> bool:
    """Whether it may go well in a moment."""
    return kind_of(error) is ErrorKind.TRANSIENT


def gives_no_reason(error: BaseException) -> bool:
    """Whether a server refused without a word, as S3 does when it is asked for a file's size."""
    answers = [_answer(link) for link in _causes(error)]
    return any(
        code is not None and code.isdigit() and status in (400, 403) for code, status in answers
    )


def reason(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def why_to_stop(error: BaseException, place: str) -> str | None:
    """The sentence that ends a run whose output cannot go on; None where only one file is lost.

    Args:
        error: what writing failed with.
        place: where to.
    """
    fault = kind_of(error)
    if fault is ErrorKind.FULL:
        trouble, remedy = f"There is no space left for {place}", "free some"
    elif fault is ErrorKind.CREDENTIALS:
        trouble, remedy = f"The credentials for {place} were refused", "renew them"
    elif fault is ErrorKind.DENIED:
        trouble, remedy = f"{place} may not be written", "allow it"
    else:
        return None
    return (
        f"{trouble} ({reason(error)}): {remedy} and give the same command again; what is done is "
        "kept."
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _fault(error: BaseException) -> ErrorKind | None:
    if isinstance(error, CredentialsRefused):
        return ErrorKind.CREDENTIALS
    names = [kind.__name__ for kind in type(error).__mro__]
    code, status = _answer(error)
    if code in CODES:
        return CODES[code]
    if getattr(error, "retryable", False):  # google.auth's word
        return ErrorKind.TRANSIENT
    if status == 401 and "ClientResponseError" in names:  # a web server's, of this one file
        return ErrorKind.DENIED
    if status is not None:
        return STATUSES.get(status, ErrorKind.TRANSIENT if status >= 500 else ErrorKind.PERMANENT)
    if isinstance(error, socket.gaierror):
        return ErrorKind.PERMANENT if error.errno in UNKNOWN_HOST else ErrorKind.TRANSIENT
    if isinstance(error, OSError) and error.errno in ERRNOS:
        return ERRNOS[error.errno]
    for name, fault in NAMES.items():
        if name in names:
            return fault
    if isinstance(error, OSError) and str(error).startswith("Forbidden: "):  # all that gcsfs says
        return ErrorKind.DENIED
    return None


def _answer(error: BaseException) -> Answer:
    """What a server said, wherever its client's exceptions keep that."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore
        metadata = response.get("ResponseMetadata", {})
        return Answer(
            response.get("Error", {}).get("Code"), _number(metadata.get("HTTPStatusCode"))
        )
    status = None
    for holder in (error, response):
        status = status or _number(getattr(holder, "status", None))  # aiohttp
        status = status or _number(getattr(holder, "status_code", None))  # azure, requests
    if type(error).__name__ == "HttpError":  # gcsfs; others call something else their code
        status = status or _number(getattr(error, "code", None))
    code = getattr(error, "error_code", None)  # azure
    return Answer(None if code is None else str(getattr(code, "value", code)), status)


def _number(value: object) -> int | None:
    return int(value) if isinstance(value, int | str) and str(value).isdigit() else None
