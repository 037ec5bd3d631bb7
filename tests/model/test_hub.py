"""Weights on the Hugging Face Hub: downloaded once, at one commit, or refused in one sentence."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import HubServer, Repo, hub_server, use_empty_cache, use_hub
from huggingface_hub import constants
from run_cli import wait_until

from rayclip.errors import RayclipError, UsageError, WeightsUnavailable
from rayclip.io import retry
from rayclip.io.retry import RetryPolicy
from rayclip.model import hub
from rayclip.model.hub import HubFile, HubRepo, choose_weights, resolve
from rayclip.model.hub_environment import HubEnvironment
from rayclip.model.hub_files import check_available, fetch, fetched_sha256
from rayclip.model.load_stage import LoadStage, current_stage
from rayclip.model.open_clip_files import text_file_names

WEIGHTS = "open_clip_model.safetensors"
CONFIG = "open_clip_config.json"
CONTENT = bytes(range(256)) * 1200
SHA256 = hashlib.sha256(CONTENT).hexdigest()
TOKEN = "hf_aSecretThatNobodySees"

FETCH = """
import pickle, sys
repo = pickle.loads(bytes.fromhex(sys.argv[1]))
assert "huggingface_hub" not in sys.modules
from rayclip.errors import RayclipError
from rayclip.model.hub_files import fetch
print("started", flush=True)
try:
    print(fetch(repo, sys.argv[2]))
except RayclipError as error:
    print(f"{type(error).__name__}: {error}")
"""
RESOLVE = """
import sys
from rayclip.errors import RayclipError
from rayclip.model.hub import resolve
try:
    print(resolve(sys.argv[1]).revision)
except RayclipError as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, no token, and little patience."""
    use_empty_cache(tmp_path / "home", monkeypatch)
    monkeypatch.setattr(retry, "PROBE", RetryPolicy(2, 60, first_pause_s=0.001))
    monkeypatch.setattr(retry, "RESTART", RetryPolicy(3, 60, first_pause_s=0.001))
    return tmp_path / "home/hub"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with hub_server() as server:
        server.repos["org/model"] = Repo({WEIGHTS: CONTENT, CONFIG: b"{}"}, license="mit")
        use_hub(server.url, monkeypatch)
        yield server


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a hub that is off."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        use_hub(url, monkeypatch)
        yield url


def refusal(call: Callable[[], object], kind: type[RayclipError] = WeightsUnavailable) -> str:
    """Return the message of the failure."""
    with pytest.raises(RayclipError) as caught:
        call()
    assert caught.type is kind
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert TOKEN not in sentence
    return sentence


def in_another_process(program: str, *words: str, **variables: str) -> str:
    """Run a program without the variables of this process, and return its last line."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    ended = subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**environment, **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stderr == ""
    return ended.stdout.splitlines()[-1]


def sent(repo: HubRepo) -> str:
    return pickle.dumps(repo).hex()


# ---- what is there ----


def test_a_repository_is_looked_up_once(server: HubServer) -> None:
    repo = resolve("org/model")
    assert repo.revision == server.repos["org/model"].commit()
    assert repo.files == (HubFile(WEIGHTS, SHA256), HubFile(CONFIG))
    assert repo.license == "mit"
    assert repo.is_complete
    assert fetched_sha256(repo, WEIGHTS) == SHA256
    assert server.downloads == {}


def test_a_file_is_downloaded_once(server: HubServer, cache: Path) -> None:
    repo = resolve("org/model")
    path = fetch(repo, WEIGHTS)
    assert Path(path).read_bytes() == CONTENT
    assert Path(path).is_relative_to(cache)
    server.requests.clear()
    assert fetch(repo, WEIGHTS) == path
    check_available(repo, [WEIGHTS])
    assert server.requests == []
    assert server.downloads == {WEIGHTS: 1}


def test_a_file_of_the_looked_up_commit_is_fetched(server: HubServer) -> None:
    repo = resolve("org/model")
    server.repos["org/model"].files = {WEIGHTS: b"trained again"}
    assert Path(fetch(repo, WEIGHTS)).read_bytes() == CONTENT
    newest = resolve("org/model")
    assert Path(fetch(newest, WEIGHTS)).read_bytes() == b"trained again"
    assert resolve("org/model", repo.revision).files == repo.files


def test_files_are_fetched_into_one_folder(server: HubServer) -> None:
    server.repos["org/model"].files |= {"tokenizer.json": b"[]", "parts/merges.txt": b"a b"}
    repo = resolve("org/model")
    folder = Path(fetch(repo, "tokenizer.json")).parent
    assert Path(fetch(repo, "parts/merges.txt")) == folder / "parts/merges.txt"
    assert (folder / "parts/merges.txt").read_bytes() == b"a b"
    assert (folder / "tokenizer.json").read_bytes() == b"[]"


def test_a_file_whose_hash_the_hub_does_not_know_is_hashed(server: HubServer) -> None:
    assert fetched_sha256(resolve("org/model"), CONFIG) == hashlib.sha256(b"{}").hexdigest()


def test_a_download_says_how_far_it_is(server: HubServer) -> None:
    server.may_answer.clear()
    seen = []

    def watch() -> None:
        wait_until(lambda: server.downloads, "the download")
        seen.append(current_stage())
        server.may_answer.set()

    repo = HubRepo("org/model", server.repos["org/model"].commit(), (HubFile(WEIGHTS),), _here())
    watching = threading.Thread(target=watch)
    watching.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", len(CONTENT) // 2)
        report = hub_files_reports(patch)
        fetch(repo, WEIGHTS)
    watching.join()
    text = f"Downloading {WEIGHTS} of org/model"
    assert seen[0] is not None
    assert seen[0].text == text
    assert report == [
        LoadStage(text, done, len(CONTENT)) for done in (len(CONTENT) // 2, len(CONTENT))
    ]


def _here() -> HubEnvironment:
    return HubEnvironment.here()


def hub_files_reports(patch: pytest.MonkeyPatch) -> list[LoadStage | None]:
    """Return a list that gets the stage after each report of progress."""
    from rayclip.model import hub_files, load_stage

    reports: list[LoadStage | None] = []

    def reporter() -> Callable[[int, int], None]:
        report = load_stage.bytes_reporter()

        def remember(done: int, total: int) -> None:
            report(done, total)
            reports.append(current_stage())

        return remember

    patch.setattr(hub_files, "bytes_reporter", reporter)
    return reports


# ---- which files ----


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        ("first.bin first.safetensors", "first.safetensors"),
        ("second.safetensors first.bin", "second.safetensors"),
        ("second.safetensors first.safetensors", "first.safetensors"),
        ("first.pt second.bin readme.md", "second.bin"),
        ("second.pt first.pth", "second.pt"),
    ],
)
def test_safetensors_are_preferred(names: str, chosen: str) -> None:
    repo = HubRepo("org/model", "0" * 40, tuple(map(HubFile, names.split())), _here())
    assert choose_weights(repo, ["first", "second"]) == chosen


def test_a_repository_without_weights_is_refused() -> None:
    repo = HubRepo("org/code", "0" * 40, (HubFile("modeling.py"), HubFile("model.h5")), _here())
    sentence = refusal(lambda: choose_weights(repo, ["model", "other"]), UsageError)
    assert sentence == (
        "org/code has no weights that rayclip can read: neither model.safetensors or "
        "other.safetensors nor the same with .bin, .pt, .pth."
    )


def test_a_tokenizer_is_its_data_and_not_its_code() -> None:
    names = ["tokenizer.json", "merges.txt", "tokenization.py", "model.safetensors"]
    repo = HubRepo("org/model", "0" * 40, tuple(map(HubFile, names)), _here())
    assert text_file_names(repo) == ["tokenizer.json", "merges.txt"]


# ---- trouble on the way ----


@pytest.mark.parametrize("faults", [["wrong"], ["503"], ["wrong", "500"]])
def test_a_broken_download_is_repeated(server: HubServer, faults: list[str]) -> None:
    server.faults = list(faults)
    assert Path(fetch(resolve("org/model"), WEIGHTS)).read_bytes() == CONTENT
    assert server.downloads[WEIGHTS] == len(faults) + 1


def test_a_download_that_is_cut_goes_on_where_it_ended(server: HubServer) -> None:
    server.faults = ["cut"]
    assert Path(fetch(resolve("org/model"), WEIGHTS)).read_bytes() == CONTENT
    assert server.downloads[WEIGHTS] == 2


def test_a_damaged_file_in_the_cache_is_replaced(server: HubServer) -> None:
    repo = resolve("org/model")
    path = Path(fetch(repo, WEIGHTS))
    path.write_bytes(CONTENT[:-1] + b"?")
    assert fetch(repo, WEIGHTS) == str(path)
    assert path.read_bytes() == CONTENT
    assert server.downloads[WEIGHTS] == 2


def test_a_proxy_that_damages_every_download_is_an_error(server: HubServer) -> None:
    server.faults = ["wrong"] * 9
    sentence = refusal(lambda: fetch(resolve("org/model"), WEIGHTS))
    assert sentence.startswith(
        f"{WEIGHTS} of org/model arrives damaged from {server.url}: its SHA-256 is not the one "
        "that the hub states (tried 3 times in "
    )
    assert sentence.endswith(" Check the proxy, or set HF_ENDPOINT to a mirror.")


def test_a_cache_that_cannot_be_written_is_an_error(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file/hub"))
    sentence = refusal(lambda: fetch(resolve("org/model"), WEIGHTS))
    assert sentence.startswith(f"The weights cannot be saved in {tmp_path}/file/hub (")
    assert "set HF_HOME to another" in sentence


# ---- what the hub refuses ----


def test_an_unknown_repository_is_named(server: HubServer) -> None:
    assert refusal(lambda: resolve("org/modell"), UsageError) == (
        f"There is no repository org/modell at {server.url}, or it is private: check the name, or "
        "set HF_TOKEN to a token that may read it."
    )


@pytest.mark.parametrize("name", ["a/b/c", "org/", "org/mo del", ""])
def test_a_name_that_cannot_be_one_is_refused(server: HubServer, name: str) -> None:
    assert refusal(lambda: resolve(name), UsageError).startswith(f"There is no repository {name!r}")


def test_an_unknown_revision_is_named(server: HubServer) -> None:
    sentence = refusal(lambda: resolve("org/model", "v2"), UsageError)
    assert sentence == "org/model has no revision v2: name a branch, a tag or a commit of it."


def test_an_unknown_file_is_named(server: HubServer) -> None:
    repo = resolve("org/model")
    assert refusal(lambda: fetch(repo, "x.bin"), UsageError) == "org/model has no file x.bin."


@pytest.mark.parametrize("token", [None, "hf_another"])
def test_a_gated_repository_says_where_to_accept_its_terms(
    server: HubServer, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/model"].token = TOKEN
    server.repos["org/model"].gated = True
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    repo = resolve("org/model")
    sentence = refusal(lambda: check_available(repo, [WEIGHTS]))
    assert refusal(lambda: fetch(repo, WEIGHTS)) == sentence
    assert sentence == (
        f"org/model is gated: accept its terms at {server.url}/org/model, and set HF_TOKEN to a "
        "token of the account that did."
    )


def test_a_refused_token_is_said(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.valid_tokens = set()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert refusal(lambda: resolve("org/model")) == (
        f"{server.url} refuses access to org/model (HTTP status 401: Invalid credentials in "
        "Authorization header): set HF_TOKEN to a token that may read it."
    )


# ---- no network ----


def test_a_hub_that_is_off_is_named_at_once(nobody: str, cache: Path) -> None:
    sentence = refusal(lambda: resolve("org/model"))
    assert sentence.startswith(
        f"{nobody} cannot be reached ([Errno 111] Connection refused), and org/model is not in "
        f"the cache {cache}: check the network, or set HF_ENDPOINT to a mirror, or HF_HOME to a "
    )


def test_a_hub_that_never_answers_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "DEADLINE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_hub(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        sentence = refusal(lambda: resolve("org/model"))
    assert "cannot be reached (no answer in 0 s), and org/model is not in the cache" in sentence


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (200, "{url} cannot be reached (its answer is not a hub's, but maybe a proxy's), and "),
        (404, "{url} has no answer for org/model (HTTP status 404: Not Found): check the name, "),
    ],
)
def test_a_server_that_is_no_hub_is_named(server: HubServer, status: int, sentence: str) -> None:
    server.page = status, b"<html>Please log in</html>"
    shown = refusal(lambda: resolve("org/model"))
    assert shown.startswith(sentence.format(url=server.url))


def test_the_deadline_leaves_time_for_one_sentence_within_15_s() -> None:
    assert hub.DEADLINE_S <= 13


def test_what_is_cached_needs_no_network(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resolve("org/model")
    path = fetch(before, WEIGHTS)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    repo = resolve("org/model")
    assert repo.revision == before.revision
    assert repo.files == (HubFile(WEIGHTS, SHA256),)
    assert choose_weights(repo, ["open_clip_model"]) == WEIGHTS
    assert fetch(repo, WEIGHTS) == path
    wanted = f"{CONFIG} of org/model is not in the cache"
    started = time.monotonic()
    for call in (fetch, lambda repo, name: check_available(repo, [name])):
        assert wanted in refusal(lambda call=call: call(repo, CONFIG))  # type: ignore[misc]
    assert time.monotonic() - started < 0.1  # the network is not tried again


def test_a_node_without_network_says_so(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = resolve("org/model")
    use_hub("http://127.0.0.1:1", monkeypatch)
    sentence = refusal(lambda: fetch(repo, WEIGHTS))
    assert refusal(lambda: check_available(repo, [WEIGHTS])) == sentence
    assert f"and {WEIGHTS} of org/model is not in the cache" in sentence


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_asks_nobody(server: HubServer, cache: Path, switch: str) -> None:
    variables = {"HF_HOME": str(cache.parent), "HF_ENDPOINT": server.url, switch: "1"}
    assert in_another_process(RESOLVE, "org/model", **variables) == (
        f"WeightsUnavailable: org/model is not in the cache {cache}, and {switch} forbids "
        "downloads: unset it, or set HF_HOME to a folder that has it."
    )
    assert server.requests == []


def test_offline_mode_uses_what_is_cached(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resolve("org/model")
    path = fetch(before, WEIGHTS)
    server.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repo = resolve("org/model")
    assert (repo.revision, fetch(repo, WEIGHTS)) == (before.revision, path)
    assert fetched_sha256(repo, WEIGHTS) == SHA256
    assert "HF_HUB_OFFLINE forbids downloads" in refusal(lambda: fetch(repo, CONFIG))
    assert "HF_HUB_OFFLINE forbids downloads" in refusal(lambda: choose_weights(repo, ["model"]))
    assert server.requests == []


# ---- other processes ----


def test_processes_that_start_together_download_once(server: HubServer) -> None:
    repo = resolve("org/model")
    server.requests.clear()
    server.may_answer.clear()
    words = [sys.executable, "-c", FETCH, sent(repo), WEIGHTS]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as first,
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as second,
    ):
        heads = 4  # each asks whether it can download, and then for the file's metadata
        wait_until(lambda: [r[0] for r in server.requests].count("HEAD") == heads, "requests")
        server.may_answer.set()
        ends = [process.communicate(timeout=20)[0] for process in (first, second)]
    assert ends == [f"started\n{fetch(repo, WEIGHTS)}\n"] * 2
    assert server.downloads == {WEIGHTS: 1}


def test_the_variables_of_the_driver_reach_a_worker_of_another_environment(
    server: HubServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/model"].token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    other = {"HF_HOME": str(tmp_path / "other"), "HF_ENDPOINT": "http://127.0.0.1:1"}
    path = in_another_process(FETCH, sent(resolve("org/model")), WEIGHTS, **other)
    assert Path(path).is_relative_to(cache)
    assert Path(path).read_bytes() == CONTENT


def test_a_token_reaches_the_hub_and_nothing_else(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/model"].token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    repo = resolve("org/model")
    fetch(repo, WEIGHTS)
    at_the_hub = {token for _, path, token in server.requests if not path.startswith("/store/")}
    at_the_store = {token for _, path, token in server.requests if path.startswith("/store/")}
    assert at_the_hub == {TOKEN}
    assert at_the_store == {None}
    assert TOKEN not in repr(repo)
    assert TOKEN not in str(repo.environment)


def test_the_token_of_a_login_goes_with_the_repository(
    server: HubServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos["org/model"].token = TOKEN
    cache.parent.mkdir()
    Path(constants.HF_TOKEN_PATH).write_text(TOKEN)
    repo = resolve("org/model")
    assert ("HF_TOKEN", TOKEN) in repo.environment.variables
    fetch(repo, WEIGHTS)
    assert "HF_TOKEN" not in os.environ  # of the user's own process
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    server.repos["org/model"].token = None
    assert ("HF_TOKEN", TOKEN) not in resolve("org/model").environment.variables


def test_folders_of_the_driver_are_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "models/hf")
    monkeypatch.setenv("HF_HUB_CACHE", "~/hub")
    monkeypatch.setenv("HF_TOKEN", "models/token")
    variables = dict(HubEnvironment.here().variables)
    assert variables["HF_HOME"] == os.path.abspath("models/hf")
    assert variables["HF_HUB_CACHE"] == "~/hub"
    assert variables["HF_TOKEN"] == "models/token"


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    sentence = refusal(lambda: resolve("org/model"), UsageError)
    assert sentence.endswith("run pip install 'rayclip[open_clip]'.")
