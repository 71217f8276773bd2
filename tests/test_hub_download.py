"""Weights from the hub, with a hub on this machine that may be down, cut off, or no hub at all."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from huggingface_hub import constants
from support.fake_hub import FakeHub, serving, use

from scripts import download_weights
from yolact import load_model
from yolact.hub.client import DownloadError, HubName, fetch_model
from yolact.hub.released import OFFICIAL_WEIGHTS, fetch_weights

ROOT = Path(__file__).resolve().parent.parent
CONTENT = bytes(range(256)) * 4000
NAME, REPOSITORY = "yolact_base", "dbolya/yolact-base"
FILE = OFFICIAL_WEIGHTS[NAME].file_name


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with serving() as server:
        use(server, tmp_path / "cache", monkeypatch)
        server.repositories[REPOSITORY] = {FILE: CONTENT, "README.md": b"card"}
        yield server


def failure(name: str, folder: Path) -> str:
    """The line that a user reads, which says where to put the file."""
    with pytest.raises(DownloadError) as caught:
        fetch_weights(name, folder)
    message = str(caught.value)
    assert message.startswith(f"cannot download {OFFICIAL_WEIGHTS[name].url}: ")
    assert message.endswith(f"put it at {folder / OFFICIAL_WEIGHTS[name].file_name}")
    assert "\n" not in message
    assert not folder.exists()
    return message


def files_below(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", OFFICIAL_WEIGHTS)
def test_published_files(name: str) -> None:
    official = OFFICIAL_WEIGHTS[name]
    assert official.file_name.startswith(name)
    assert official.url.endswith("/" + official.file_name)
    if name.startswith("maskrcnn"):
        assert official.url.startswith("https://download.pytorch.org/models/")
    else:
        assert official.repository.startswith("dbolya/yolact-")


def test_an_empty_file(hub: FakeHub, tmp_path: Path) -> None:
    hub.repositories[REPOSITORY][FILE] = b""
    assert fetch_weights(NAME, tmp_path).read_bytes() == b""


def test_the_whole_file_once_and_under_its_name(hub: FakeHub, tmp_path: Path) -> None:
    path = fetch_weights(NAME, tmp_path / "weights")
    assert (path.name, path.read_bytes()) == (FILE, CONTENT)
    assert path.is_relative_to(tmp_path / "cache") and not (tmp_path / "weights").exists()
    asked = len(hub.requests)
    assert fetch_weights(NAME, tmp_path / "weights") == path
    assert len(hub.requests) == asked  # what lies in the cache is not asked about
    with pytest.raises(KeyError, match="yolact_im700"):
        fetch_weights("yolact", tmp_path)


def test_a_file_put_there_by_hand_wins(hub: FakeHub, tmp_path: Path) -> None:
    fetch_weights(NAME, tmp_path)
    (tmp_path / FILE).write_bytes(b"mine")
    hub.requests.clear()
    assert fetch_weights(NAME, tmp_path).read_bytes() == b"mine"
    assert hub.requests == []


def test_a_broken_connection_is_continued(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # else 10 MB
    hub.cuts = [300_000, None]
    with suppress(DownloadError):  # older versions go on when they are called again
        fetch_weights(NAME, tmp_path)
    assert fetch_weights(NAME, tmp_path).read_bytes() == CONTENT
    assert [r.partition(" from ")[2] for r in hub.downloads()] == ["", "300000"]


def test_a_connection_that_breaks_always(hub: FakeHub, tmp_path: Path) -> None:
    hub.cuts = [0]
    assert "0 bytes" in failure(NAME, tmp_path / "weights")
    assert not any(path.name == FILE for path in tmp_path.rglob("*"))
    hub.cuts = [None]
    assert fetch_weights(NAME, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (None, "no such repository, or a private one: log in by `hf auth login` or HF_TOKEN"),
        ((401, "GatedRepo"), "access has to be asked for on the repository's page; log in"),
        ((403, "GatedRepo"), "access has to be asked for"),
        ((403, ""), "403 Forbidden"),
        ((404, "EntryNotFound"), "the repository has no such file"),
        ((503, ""), "503"),
    ],
)
def test_refusals(hub: FakeHub, tmp_path: Path, refusal: tuple[int, str] | None, said: str) -> None:
    hub.refusal = refusal
    assert said in failure("yolact_im700", tmp_path / "weights")


def test_a_web_page_in_place_of_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    hub.portal = True
    assert "the answer is not a hub's" in failure(NAME, tmp_path / "weights")
    for name in ("hf:a/b", "hf:a/b/c.pth"):
        with pytest.raises(DownloadError, match=f"cannot download {name}: the answer is not a hub"):
            fetch_model(name)


def test_a_web_page_in_place_of_weights(hub: FakeHub) -> None:
    hub.repositories["a/b"] = {"page.pth": b"<html>no weights</html>"}
    with pytest.raises(ValueError, match=r"page\.pth: not a readable checkpoint"):
        load_model("hf:a/b")


@pytest.mark.parametrize("offline", [True, False])
def test_without_a_connection(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    hub.repositories["a/b"] = {"w.pth": CONTENT}
    cached = [fetch_weights(NAME, tmp_path), fetch_model("hf:a/b"), fetch_model("hf:a/b/w.pth")]
    if offline:
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
        template = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    hub.requests.clear()
    again = [fetch_weights(NAME, tmp_path), fetch_model("hf:a/b"), fetch_model("hf:a/b/w.pth")]
    assert again == cached
    said = "HF_HUB_OFFLINE is set" if offline else "Connection refused"
    assert said in failure("yolact_im700", tmp_path / "weights")
    with pytest.raises(DownloadError, match=f"hf:a/c: .*{said}.*; try again, or fetch its files"):
        fetch_model("hf:a/c")
    assert hub.requests == []


def test_a_cache_that_cannot_be_written(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fetch_weights(NAME, tmp_path)
    folders = [folder for folder in (tmp_path / "cache").rglob("*") if folder.is_dir()]
    for folder in folders:
        folder.chmod(0o555)
    assert fetch_weights(NAME, tmp_path) == path
    for folder in folders:
        folder.chmod(0o755)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(path / "cache"))  # below a file
    assert "Not a directory" in failure("yolact_base", tmp_path / "weights")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
def test_processes_at_once_download_once(hub: FakeHub, tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=fetch_weights, args=(NAME, tmp_path)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(hub.downloads()) == 1
    assert fetch_weights(NAME, tmp_path).read_bytes() == CONTENT


def test_the_client_finds_a_mirror_and_tells_nothing(hub: FakeHub, tmp_path: Path) -> None:
    """In a process of its own, which reads the environment."""
    command = [sys.executable, str(ROOT / "scripts" / "download_weights.py"), NAME]
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | own
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stdout) == (0, f"{Path('weights') / FILE}\n"), done.stderr
    assert (tmp_path / "weights" / FILE).read_bytes() == CONTENT
    assert {request.split()[1].split("/")[1] for request in hub.requests} == {"dbolya"}
    assert not any("torch" in agent for agent in hub.agents)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("hf:a/b", ("a/b", None, None)),
        ("hf://a-1/b_2.c", ("a-1/b_2.c", None, None)),
        ("hf:a/b@v1.0", ("a/b", "v1.0", None)),
        ("hf:a/b/c.pth", ("a/b", None, "c.pth")),
        ("hf:a/b@0123abc/c/d.pth", ("a/b", "0123abc", "c/d.pth")),
    ],
)
def test_names(text: str, parts: tuple[str, str | None, str | None]) -> None:
    assert HubName.parse(text) == parts


@pytest.mark.parametrize(
    "text", ["hf:", "hf:a", "hf:a/", "hf:a/b@", "hf:a/b/", "hf:/a/b", "hf:a b/c"]
)
def test_no_names(text: str) -> None:
    with pytest.raises(ValueError, match=f"{text}: expected hf:owner/name or"):
        load_model(text)


@pytest.mark.parametrize(
    ("files", "name", "weights"),
    [
        (["a.pth", "README.md"], "hf:a/b", "a.pth"),
        (["a.pth", "d/b.pth"], "hf:a/b/d/b.pth", "d/b.pth"),
        (["a.xml", "a.bin"], "hf:a/b/a.xml", "a.xml"),
    ],
)
def test_files_of_a_repository(hub: FakeHub, files: list[str], name: str, weights: str) -> None:
    hub.repositories["a/b"] = dict.fromkeys(files, b"some bytes")
    path = fetch_model(name)
    assert path.as_posix().endswith(f"/{hub.commit('a/b')}/{weights}")
    assert path.suffix != ".xml" or path.with_suffix(".bin").read_bytes() == b"some bytes"
    at_commit = name.replace("a/b", f"a/b@{hub.commit('a/b')}", 1)
    assert fetch_model(at_commit) == path


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "it has no files; name one as hf:a/b/FILE"),
        (["y.pth", "x.pth"], "it has x.pth, y.pth; name one"),
        (["model.safetensors"], "it has model.safetensors; name one"),
        ([f"{i:02}.txt" for i in range(30)], "it has 00.txt, .*18.txt, 19.txt, ...; name one"),
    ],
)
def test_repositories_without_a_model(hub: FakeHub, files: list[str], said: str) -> None:
    hub.repositories["a/b"] = dict.fromkeys(files, b"")
    expected = "hf:a/b: expected config.json with model.safetensors, or one .pth file, in the"
    with pytest.raises(DownloadError, match=f"^{expected} repository; {said}"):
        fetch_model("hf:a/b")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf:a/b/none.pth", "the repository has no such file"),
        ("hf:a/b@none", "the repository has no such revision"),
        ("hf:a/b@none/a.pth", "the repository has no such revision"),
        ("hf:a/none", "no such repository, or a private one: .*HF_TOKEN"),
        ("hf:a/b", "config.json: not written by save_pretrained of yolact"),
    ],
)
def test_what_is_not_there(hub: FakeHub, name: str, said: str) -> None:
    hub.repositories["a/b"] = {"config.json": b"{}", "model.safetensors": CONTENT, "a.pth": b""}
    with pytest.raises(
        DownloadError, match=f"^cannot download {name}: .*{said}; (try again|name one)"
    ):
        fetch_model(name)
    assert not any("model.safetensors" in request for request in hub.requests)


def test_a_newer_version_is_fetched(hub: FakeHub) -> None:
    hub.repositories["a/b"] = {"a.pth": b"old"}
    old = fetch_model("hf:a/b")
    hub.repositories["a/b"] = {"a.pth": b"new"}
    new = fetch_model("hf:a/b")
    assert (old.read_bytes(), new.read_bytes()) == (b"old", b"new")


@pytest.mark.parametrize("wanted", [True, False])
def test_the_hub_is_told_nothing_unless_it_is_wanted(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    if wanted:
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    fetch_weights(NAME, tmp_path)
    assert any("torch" in agent for agent in hub.agents) == wanted


def test_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "darknet53.pth").touch()
    assert download_weights.main(["darknet53", "--folder", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "darknet53.pth")
    assert download_weights.main(["--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(OFFICIAL_WEIGHTS)
    for wrong in ([], ["yolact"]):
        with pytest.raises(SystemExit, match="2"):
            download_weights.main(wrong)


def test_script_that_fails(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert download_weights.main([NAME, "yolact_im700", "--folder", str(tmp_path / "w")]) == 1
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "w" / FILE)
    assert "cannot download https://huggingface.co/dbolya/yolact-im700/" in err
    assert (tmp_path / "w" / FILE).read_bytes() == CONTENT
    assert [path.name for path in (tmp_path / "w").iterdir()] == [FILE]
    assert download_weights.main(["yolact_im700", "--folder", str(tmp_path / "new")]) == 1
    assert not (tmp_path / "new").exists()
