"""The command that installs an extra, in a checkout, from a wheel and from an index."""

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from effnet.runtime import extras
from effnet.runtime.extras import CHECKOUT, install_command


@pytest.fixture(autouse=True)
def _asked_again() -> Iterator[None]:
    extras._source.cache_clear()
    yield
    extras._source.cache_clear()


def test_from_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(CHECKOUT)
    assert shlex.split(install_command("onnx", "openvino"))[-3:] == ["install", "-e", ".[onnx,openvino]"]
    monkeypatch.chdir(tmp_path)
    extras._source.cache_clear()
    words = shlex.split(install_command("onnx"))
    assert words[-2:] == ["-e", f"{CHECKOUT}[onnx]"]
    assert Path(words[0]).name == "pip"


def test_from_a_wheel_and_from_an_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Installed:
        url = "file:///home/me/my%20dist/effnet-0.1.0-py3-none-any.whl"

        def read_text(self, name: str) -> str | None:
            return json.dumps({"url": self.url, "archive_info": {}}) if self.url else None

    monkeypatch.setattr(extras, "CHECKOUT", tmp_path)
    monkeypatch.setattr(extras, "distribution", lambda name: Installed())
    path = "/home/me/my dist/effnet-0.1.0-py3-none-any.whl"
    assert shlex.split(install_command("hub"))[1:] == ["install", f"{path}[hub]"]
    extras._source.cache_clear()
    Installed.url = ""
    assert shlex.split(install_command("hub"))[1:] == ["install", "effnet[hub]"]


def test_no_message_names_an_index_that_the_package_is_not_on() -> None:
    source = CHECKOUT / "src/effnet"
    naming = [path for path in source.rglob("*.py") if "install 'effnet[" in path.read_text(encoding="utf-8")]
    assert not naming
