"""Official checkpoints are downloaded once, atomically and verified, or refused in one sentence."""

import hashlib
import http.server
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import checkpoints
import fsspec
import pytest
import torch
from loopback_servers import serve
from run_cli import wait_until

from rayclip.errors import UsageError, WeightsUnavailable
from rayclip.io import retry
from rayclip.io.atomic_write import temporary_name
from rayclip.io.retry import RetryPolicy
from rayclip.model import weights
from rayclip.model.load_stage import LoadStage, current_stage
from rayclip.model.models import CustomWeights, describe
from rayclip.model.openai import OFFICIAL_MODELS
from rayclip.model.weights import (
    MIRROR_VARIABLE,
    check_official_available,
    official_checkpoint,
    store_checkpoint,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # clip imports pkg_resources, which is deprecated
    import clip

CONTENT = bytes(range(256)) * 1200
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "ViT-B-32.pt"
WHERE = f"/{SHA256}/{NAME}"

DOWNLOAD = """
import sys
from pathlib import Path
from rayclip.model.weights import official_checkpoint
print("started", flush=True)
print(official_checkpoint("ViT-B/32", sys.argv[1], sys.argv[2], Path(sys.argv[3])))
"""


class Mirror(http.server.ThreadingHTTPServer):
    """A web server on loopback.

    Attributes:
        files: what it has, by the path of the address.
        faults: what happens to the next requests, one each: ``cut``, ``stall`` or a status.
        requests: the path of each request.
        may_answer: cleared, it keeps whoever asks waiting after half of the body.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.files = {WHERE: CONTENT}
        self.faults: list[str] = []
        self.requests: list[str] = []
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        fault = self.server.faults.pop(0) if self.server.faults else ""
        content = self.server.files.get(self.path)
        if fault.isdigit() or content is None:
            self.send_error(int(fault or 404))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        if fault == "stall":
            self.server.may_answer.clear()
        self.server.may_answer.wait()
        if fault != "cut":
            self.wfile.write(content[len(content) // 2 :])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "RESTART", RetryPolicy(3, 60, first_pause_s=0.001))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with serve(Mirror()) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that left
        yield server
        server.may_answer.set()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".cache" / "clip"


def fetch(mirror: Mirror | str | Path, cache: Path) -> Path:
    address = mirror.url if isinstance(mirror, Mirror) else str(mirror)
    return Path(official_checkpoint("ViT-B/32", SHA256, address, cache))


def refusal(mirror: Mirror | str | Path, cache: Path) -> str:
    """Return the message of the failure."""
    with pytest.raises(WeightsUnavailable) as caught:
        fetch(mirror, cache)
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


def kept(cache: Path) -> list[str]:
    """Return the files in the cache, except the lock."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def put(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@contextmanager
def downloading(mirror: Mirror, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Start another process that downloads."""
    words = [sys.executable, "-c", DOWNLOAD, SHA256, mirror.url, str(cache)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


# ---- what is there ----


def test_a_checkpoint_is_downloaded_once(mirror: Mirror, cache: Path) -> None:
    assert fetch(mirror, cache) == fetch(mirror, cache) == cache / NAME
    assert (cache / NAME).read_bytes() == CONTENT
    assert kept(cache) == [NAME]
    assert mirror.requests == [WHERE]


def test_a_download_says_how_far_it_is(mirror: Mirror, cache: Path) -> None:
    seen = []
    read = weights._blocks

    def blocks(*arguments: Any) -> Iterator[bytes]:
        for block in read(*arguments):
            seen.append(current_stage())
            yield block

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_blocks", blocks)
        patch.setattr(weights, "CHUNK_BYTES", len(CONTENT) // 2)
        fetch(mirror, cache)
    size = len(CONTENT)
    assert seen == [LoadStage(f"Downloading {NAME}", done, size) for done in (size // 2, size)]
    assert current_stage() is None


def test_a_file_downloaded_by_clip_is_used(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror.files = {f"/models{WHERE}": CONTENT}
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = Path.home() / ".cache" / "clip"
    there = clip.clip._download(f"{mirror.url}/models{WHERE}", str(folder))
    mirror.requests.clear()
    assert official_checkpoint("ViT-B/32", SHA256, mirror.url) == there
    assert mirror.requests == []
    assert [path.name for path in folder.iterdir()] == [NAME]


@pytest.mark.parametrize("damaged", [CONTENT[:-1], b"", CONTENT[:-1] + b"?"])
def test_a_damaged_file_is_replaced(mirror: Mirror, cache: Path, damaged: bytes) -> None:
    path = put(cache, damaged)
    assert fetch(mirror, cache) == path
    assert path.read_bytes() == CONTENT
    assert len(mirror.requests) == 1


def test_a_damaged_file_stays_if_the_download_fails(mirror: Mirror, cache: Path) -> None:
    path = put(cache, b"damaged")
    mirror.files.clear()
    refusal(mirror, cache)
    assert path.read_bytes() == b"damaged"


@pytest.mark.parametrize("model_name", OFFICIAL_MODELS)
def test_addresses_are_those_of_openai(mirror: Mirror, cache: Path, model_name: str) -> None:
    official = urlsplit(clip.clip._MODELS[model_name]).path.removeprefix("/clip/models")
    mirror.files[official] = b"another file"
    sha256 = OFFICIAL_MODELS[model_name].weights_sha256
    with pytest.raises(WeightsUnavailable, match="not the file that OpenAI published"):
        official_checkpoint(model_name, sha256, mirror.url, cache)
    assert mirror.requests == [official]
    assert clip.clip._MODELS[model_name] == weights.OFFICIAL_ADDRESS + official


def test_clip_loads_a_downloaded_checkpoint(mirror: Mirror, cache: Path, tmp_path: Path) -> None:
    published = checkpoints.small_vit()
    archive = checkpoints.save_torchscript(published, tmp_path / "published.pt").read_bytes()
    sha256 = hashlib.sha256(archive).hexdigest()
    mirror.files[f"/{sha256}/{NAME}"] = archive
    path = official_checkpoint("ViT-B/32", sha256, mirror.url, cache)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated, but OpenAI's files stay
        model, _ = clip.load(path, device="cpu")
    for name, tensor in published.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.float()), name


# ---- mirrors ----


def test_a_mirror_can_be_a_local_folder(tmp_path: Path, cache: Path) -> None:
    put(tmp_path / "mirror" / SHA256)
    assert fetch(tmp_path / "mirror", cache).read_bytes() == CONTENT


def test_a_mirror_can_be_an_fsspec_url(memory_url: str, cache: Path) -> None:
    with fsspec.open(memory_url + WHERE, "wb") as file:
        file.write(CONTENT)
    assert fetch(memory_url, cache).read_bytes() == CONTENT


def test_a_mirror_may_end_with_a_slash(mirror: Mirror, cache: Path) -> None:
    fetch(f"{mirror.url}/", cache)
    assert mirror.requests == [WHERE]


@pytest.mark.parametrize(
    "wrong",
    ["/nowhere", "nosuchprotocol://mirror", "memory://empty", "http://host:port", "http://[::"],
)
def test_a_wrong_mirror_is_refused_by_name(cache: Path, wrong: str) -> None:
    sentence = refusal(wrong, cache)
    assert sentence.startswith(f"{wrong}{WHERE} cannot be read (")
    assert MIRROR_VARIABLE in sentence
    assert kept(cache) == []


# ---- trouble on the way ----


def test_a_missing_file_is_not_retried(mirror: Mirror, cache: Path) -> None:
    mirror.files.clear()
    sentence = refusal(mirror, cache)
    assert f"{mirror.url}{WHERE} cannot be read (HTTP Error 404: Not Found)" in sentence
    assert len(mirror.requests) == 1
    assert kept(cache) == []


def test_a_wrong_checksum_is_not_retried(mirror: Mirror, cache: Path) -> None:
    wrong = b"<html>Please log in</html>"
    mirror.files[WHERE] = wrong
    sentence = refusal(mirror, cache)
    found = hashlib.sha256(wrong).hexdigest()
    assert f"{mirror.url}{WHERE} is not the file that OpenAI published" in sentence
    assert f"(SHA-256 {found}, expected {SHA256})" in sentence
    assert len(mirror.requests) == 1
    assert kept(cache) == []


@pytest.mark.parametrize("faults", [["cut"], ["503"], ["cut", "500"]])
def test_transient_errors_are_retried(mirror: Mirror, cache: Path, faults: list[str]) -> None:
    mirror.faults = list(faults)
    assert fetch(mirror, cache).read_bytes() == CONTENT
    assert len(mirror.requests) == len(faults) + 1
    assert kept(cache) == [NAME]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("cut", f"it ended {len(CONTENT) // 2} bytes early"),
        ("503", "HTTP Error 503: Service Unavailable"),
        ("stall", "timed out"),
    ],
)
def test_retries_end_after_three_attempts(
    mirror: Mirror, cache: Path, fault: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "TIMEOUT_S", 0.2)
    mirror.faults = [fault] * 9
    sentence = refusal(mirror, cache)
    assert f"{mirror.url}{WHERE} cannot be read ({reason} (tried 3 times in " in sentence
    assert MIRROR_VARIABLE in sentence
    assert len(mirror.requests) == 3
    assert kept(cache) == []


def test_an_unreachable_host_is_named_with_a_remedy(cache: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
        sentence = refusal(nobody, cache)
    assert f"{nobody}{WHERE} cannot be read ([Errno 111] Connection refused (tried " in sentence
    assert MIRROR_VARIABLE in sentence
    assert kept(cache) == []


@pytest.mark.parametrize("ask", [official_checkpoint, check_official_available])
def test_the_same_weights_on_the_hub_are_named_if_openai_cannot_be_reached(
    ask: Callable[..., object], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "OFFICIAL_ADDRESS", "http://127.0.0.1:1/clip/models")
    with pytest.raises(WeightsUnavailable) as caught:
        ask("ViT-L/14@336px", SHA256, None, cache)
    assert str(caught.value).endswith(
        ", or take the same weights from the Hugging Face Hub: "
        "open_clip:ViT-L-14-336-quickgelu/openai as model_name (pip install 'rayclip[open_clip]')."
    )


def test_a_mirror_that_cannot_be_read_is_the_one_to_correct(cache: Path) -> None:
    assert "open_clip" not in refusal("http://127.0.0.1:1", cache)


# ---- other processes ----


def test_processes_that_start_together_download_once(mirror: Mirror, cache: Path) -> None:
    mirror.may_answer.clear()
    with (
        downloading(mirror, cache) as first,
        downloading(mirror, cache) as second,
        downloading(mirror, cache) as third,
        downloading(mirror, cache) as fourth,
    ):
        processes = (first, second, third, fourth)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
        wait_until(lambda: mirror.requests, "a request")
        mirror.may_answer.set()
        ends = [process.communicate(timeout=20)[0] for process in processes]
    assert ends == [f"{cache / NAME}\n"] * 4
    assert mirror.requests == [WHERE]
    assert kept(cache) == [NAME]


def test_temporary_files_of_a_killed_process_are_removed(mirror: Mirror, cache: Path) -> None:
    mirror.may_answer.clear()
    with downloading(mirror, cache) as process:
        wait_until(lambda: mirror.requests and kept(cache), "half a file")
        process.send_signal(signal.SIGKILL)
    (left,) = kept(cache)
    other = temporary_name()  # of this process, which may still be writing it
    shutil.copy(cache / left, cache / other)
    mirror.may_answer.set()
    fetch(mirror, cache)
    assert kept(cache) == sorted([other, NAME])


# ---- a cache that cannot take it ----


def test_a_cache_that_cannot_be_a_folder_is_an_error(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    sentence = refusal(mirror, tmp_path / "file" / "clip")
    assert f"cannot be saved as {tmp_path / 'file' / 'clip' / NAME} (" in sentence
    assert mirror.requests == []


def test_a_full_disk_leaves_nothing(mirror: Mirror, cache: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, hard))
    try:
        sentence = refusal(mirror, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "File too large" in sentence
    assert len(mirror.requests) == 1
    assert kept(cache) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_cache_is_an_error(mirror: Mirror, cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o500)
    assert "make sure that the folder is writable" in refusal(mirror, cache)
    assert mirror.requests == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_is_used(mirror: Mirror, cache: Path) -> None:
    put(cache)
    cache.chmod(0o500)
    assert fetch(mirror, cache).read_bytes() == CONTENT
    assert mirror.requests == []


# ---- a user's own checkpoint ----


def test_weights_at_a_url_are_copied_and_described(
    tmp_path: Path, memory_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    content = checkpoints.save_state_dict(checkpoints.small_vit(), tmp_path / "m.pt").read_bytes()
    fsspec.filesystem("memory").pipe_file(f"{memory_url}/mine.pt", content)
    spec = describe("custom", CustomWeights(f"{memory_url}/mine.pt"))
    assert spec.weights_sha256 == hashlib.sha256(content).hexdigest()
    assert spec.checkpoint is not None
    assert Path(spec.checkpoint).read_bytes() == content
    assert [path.suffix for path in Path(spec.checkpoint).parent.iterdir()] == [".pt"]


@pytest.mark.parametrize("url", ["memory://nothing/there.pt", "nosuch://x/y.pt"])
def test_weights_at_a_url_that_cannot_be_read_are_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match=f"The weights {url} cannot be read"):
        describe("custom", CustomWeights(url))


def test_a_checkpoint_from_another_node_is_placed_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    sha256 = hashlib.sha256(b"weights").hexdigest()
    path = Path(store_checkpoint(b"weights", sha256))
    path.write_bytes(b"damaged")
    assert Path(store_checkpoint(b"weights", sha256)) == path
    assert path.read_bytes() == b"weights"
    assert [one.name for one in path.parent.iterdir()] == [f"{sha256}.pt"]
