"""Downloads against a local https server: whatever happens, the cache holds whole files or none."""

import hashlib
import logging
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from effnet.runtime.cache import cache_dir
from effnet.runtime.errors import UserError
from effnet.runtime.temporary import temporary_path
from effnet.weights.download import download
from tests.small_disk import small_disk

from .https_server import Publisher, Served

BODY = random.Random(0).randbytes(1_000_000)
SHA256 = hashlib.sha256(BODY).hexdigest()

# The packages' own __init__ would import PyTorch, which takes seconds and downloads nothing.
ANOTHER_PROCESS = """
import sys, types
from pathlib import Path
import effnet
for name in ("effnet.models", "effnet.weights"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [str(Path(effnet.__file__).parent.joinpath(*name.split(".")[1:]))]
from effnet.weights.download import download
print("ready", flush=True)
download(sys.argv[1], Path(sys.argv[2]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "weights" / "w.pth"


@pytest.fixture
def served(publisher: Publisher) -> Served:
    publisher.files["w.pth"] = served = Served(BODY)
    return served


def kept(path: Path) -> set[str]:
    """Names of what lies in the cache beside the lock."""
    return {entry.name for entry in path.parent.iterdir()} - {f"{path.name}.lock"}


def start_process(url: str, path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", ANOTHER_PROCESS, url, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_downloads_once_and_records_the_hash(publisher: Publisher, served: Served, path: Path) -> None:
    for _ in range(2):
        assert download(publisher.url("w.pth"), path, size=len(BODY), sha256=SHA256[:8]) == path
    assert path.read_bytes() == BODY
    assert kept(path) == {"w.pth", "w.pth.sha256"}
    assert path.with_name("w.pth.sha256").read_text().strip() == SHA256
    assert publisher.requests == [("w.pth", None)]


@pytest.mark.parametrize("name", ["w.pth.part.validator", "w.pth.sha256"])
def test_what_a_killed_process_left_is_removed(
    publisher: Publisher, served: Served, path: Path, name: str
) -> None:
    path.parent.mkdir(parents=True)
    leave = "import sys; from pathlib import Path; from effnet.runtime.temporary import temporary_path as beside\n"
    leave += "beside(Path(sys.argv[1])).touch()"
    subprocess.run([sys.executable, "-c", leave, str(path.with_name(name))], check=True)
    mine = temporary_path(path.with_name(name))
    mine.touch()
    assert len(kept(path)) == 2
    download(publisher.url("w.pth"), path)
    assert kept(path) == {"w.pth", "w.pth.sha256", mine.name}


def test_resumes_after_an_interruption(publisher: Publisher, served: Served, path: Path) -> None:
    served.cuts = [300_000, 200_000]
    download(publisher.url("w.pth"), path)
    assert path.read_bytes() == BODY
    assert kept(path) == {"w.pth", "w.pth.sha256"}
    assert [asked for _, asked in publisher.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_truncation_keeps_the_part_for_the_next_call(
    publisher: Publisher, served: Served, path: Path
) -> None:
    served.cuts = [400_000, 0]
    with pytest.raises(UserError, match=r"interrupted after 400000 bytes .*600000 bytes early"):
        download(publisher.url("w.pth"), path)
    assert kept(path) == {"w.pth.part", "w.pth.part.validator"}
    download(publisher.url("w.pth"), path)
    assert path.read_bytes() == BODY
    assert publisher.requests[-1] == ("w.pth", "bytes=400000-")


def test_a_file_that_changed_meanwhile_is_not_mixed(publisher: Publisher, served: Served, path: Path) -> None:
    served.cuts = [400_000, 0]
    with pytest.raises(UserError):
        download(publisher.url("w.pth"), path)
    publisher.files["w.pth"] = Served(BODY[::-1], etag='"v2"')
    download(publisher.url("w.pth"), path)
    assert path.read_bytes() == BODY[::-1]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_without_a_validator_it_starts_anew(publisher: Publisher, path: Path, etag: str | None) -> None:
    publisher.files["w.pth"] = Served(BODY, etag=etag, cuts=[400_000])
    download(publisher.url("w.pth"), path)
    assert path.read_bytes() == BODY
    assert [asked for _, asked in publisher.requests] == [None, None]


@pytest.mark.parametrize("fault", ["wrong range", "part as long as the file"])
def test_a_part_that_does_not_fit_is_dropped(
    publisher: Publisher, served: Served, path: Path, fault: str
) -> None:
    path.parent.mkdir(parents=True)
    path.with_name("w.pth.part").write_bytes(b"x" * (1000 if fault == "wrong range" else len(BODY)))
    path.with_name("w.pth.part.validator").write_text('"v1"')
    served.ranges_off_by = 7 if fault == "wrong range" else 0
    download(publisher.url("w.pth"), path)
    assert path.read_bytes() == BODY


def test_a_killed_process_is_resumed(publisher: Publisher, served: Served, path: Path) -> None:
    served.gate = threading.Event()
    process = start_process(publisher.url("w.pth"), path)
    part = path.with_name("w.pth.part")
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    served.gate.set()
    have = part.stat().st_size
    assert 0 < have < len(BODY)
    assert not path.exists()
    download(publisher.url("w.pth"), path)
    assert path.read_bytes() == BODY
    assert publisher.requests[-1] == ("w.pth", f"bytes={have}-")


def test_two_processes_at_once(publisher: Publisher, served: Served, path: Path) -> None:
    served.gate = threading.Event()
    processes = [start_process(publisher.url("w.pth"), path) for _ in range(2)]
    served.gate.set()
    assert [process.wait(60) for process in processes] == [0, 0]
    assert path.read_bytes() == BODY
    assert kept(path) == {"w.pth", "w.pth.sha256"}
    assert len(publisher.requests) == 1


@pytest.mark.parametrize(
    "stated", [{"sha256": "0123abcd"}, {"sha256": "f" * 64}, {"size": 5}, {"size": len(BODY) + 1}]
)
def test_a_wrong_file_is_not_kept(
    publisher: Publisher, served: Served, path: Path, stated: dict[str, int | str]
) -> None:
    with pytest.raises(UserError, match=r"nothing was kept.*by hand and put it at .*w\.pth"):
        download(publisher.url("w.pth"), path, **stated)  # type: ignore[arg-type]
    assert kept(path) == set()


def test_missing_file(publisher: Publisher, path: Path) -> None:
    with pytest.raises(UserError, match=r"HTTP 404 Not Found.*by hand") as caught:
        download(publisher.url("w.pth"), path)
    assert "\n" not in str(caught.value)
    assert kept(path) == set()


def test_no_network(path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("localhost", 0))
        url = f"https://localhost:{unused.getsockname()[1]}/w.pth"
        with pytest.raises(UserError) as caught:
            download(url, path)
    message = str(caught.value)
    assert message.startswith("localhost can't be reached")
    assert message.endswith(f"fetch {url} by hand and put it at {path}")
    assert "\n" not in message
    assert kept(path) == set()


def test_an_unknown_authority_is_not_trusted(
    publisher: Publisher, served: Served, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(UserError, match=r"can't be reached .*certificate"):
        download(publisher.url("w.pth"), path)
    assert kept(path) == set()


@pytest.mark.parametrize(
    "url", ["http://localhost/w.pth", "file:///etc/passwd", "ftp://localhost/w.pth", "w.pth"]
)
def test_only_https(path: Path, url: str) -> None:
    with pytest.raises(UserError, match="only https"):
        download(url, path)
    assert not path.parent.exists()


def test_redirections_stay_on_https(publisher: Publisher, served: Served, path: Path) -> None:
    publisher.files["good"] = Served(b"", redirect=publisher.url("w.pth"))
    publisher.files["bad"] = Served(b"", redirect="http://localhost/w.pth")
    assert download(publisher.url("good"), path).read_bytes() == BODY
    with pytest.raises(UserError, match="only https"):
        download(publisher.url("bad"), path.with_name("other.pth"))


def test_the_hash_of_a_hub_redirection_is_checked(publisher: Publisher, served: Served, path: Path) -> None:
    for name, digest in (("right", SHA256), ("wrong", "0" * 64)):
        headers = {"X-Linked-Etag": f'"{digest}"'}
        publisher.files[name] = Served(b"", redirect=publisher.url("w.pth"), redirect_headers=headers)
    download(publisher.url("right"), path)
    with pytest.raises(UserError, match="SHA-256"):
        download(publisher.url("wrong"), path.with_name("other.pth"))


def test_damage_in_the_cache_is_mended(
    publisher: Publisher, served: Served, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    download(publisher.url("w.pth"), path)
    path.write_bytes(BODY[:-1] + b"!")
    with caplog.at_level(logging.WARNING, "effnet"):
        download(publisher.url("w.pth"), path)
    assert "downloading it again" in caplog.text
    assert path.read_bytes() == BODY


def test_another_file_than_the_first_time_is_refused(
    publisher: Publisher, served: Served, path: Path
) -> None:
    download(publisher.url("w.pth"), path)
    path.unlink()
    publisher.files["w.pth"] = Served(BODY[::-1], etag='"v2"')
    with pytest.raises(UserError, match=r"w\.pth\.sha256"):
        download(publisher.url("w.pth"), path)
    assert not path.exists()


def test_a_file_put_there_by_hand_needs_no_network(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    url = "https://localhost:1/w.pth"
    download(url, path, sha256=SHA256[:8])
    path.write_bytes(BODY[::-1])
    with pytest.raises(UserError, match="can't be reached"):
        download(url, path)


def test_a_body_of_unknown_length(publisher: Publisher, path: Path) -> None:
    publisher.files["w.pth"] = Served(BODY, sends_length=False)
    assert download(publisher.url("w.pth"), path).read_bytes() == BODY


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_can_only_be_read(publisher: Publisher, served: Served, path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o500)
    with pytest.raises(UserError, match="EFFNET_HOME"):
        download(publisher.url("w.pth"), path)


def test_a_cache_that_can_not_be_made(publisher: Publisher, served: Served, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"can't be written.*EFFNET_HOME"):
        download(publisher.url("w.pth"), tmp_path / "file" / "w.pth")


def test_a_full_disk_keeps_no_part(
    publisher: Publisher, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        path = disk.root / "weights" / "w.pth"
        served.gate = threading.Event()
        threading.Timer(0.3, disk.fill).start()
        threading.Timer(1.0, served.gate.set).start()
        with pytest.raises(UserError, match=r"w\.pth: can't be written \((No space|File too).*EFFNET_HOME"):
            download(publisher.url("w.pth"), path)
        assert kept(path) == set()
        with pytest.raises(UserError, match=r"only \S+ GB are free|File too large"):  # told before it begins
            download(publisher.url("w.pth"), path)
        assert len(publisher.requests) == 2
        disk.free()
        assert download(publisher.url("w.pth"), path).read_bytes() == BODY


def test_cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("EFFNET_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_dir() == tmp_path / ".cache" / "effnet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "effnet"
    monkeypatch.setenv("EFFNET_HOME", "~/elsewhere")
    assert cache_dir() == tmp_path / "elsewhere"
