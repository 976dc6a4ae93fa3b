"""One server for most tests of the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serve.serving import TOKEN, Running, weights_file

for package in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package, reason="extra serve")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of two models: `one` label, `several` labels."""
    folder = tmp_path_factory.mktemp("models")
    return {
        "one": weights_file(folder / "one.safetensors"),
        "several": weights_file(folder / "several.safetensors", several=True),
    }


@pytest.fixture(scope="session")
def server(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of both models with a token and tight limits: 2 MiB, 10 seconds, 1 million pixels."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "token").write_text(TOKEN + "\n")
    running = Running(
        folder,
        str(models["one"]),
        f"many={models['several']}",
        *("--unknown", "--token-file", str(folder / "token"), "--cors-origin", "https://example.org"),
        *("--max-mib", "2", "--timeout", "10", "--max-pixels", "1000000", "--queue", "64"),
        *("--max-batch", "8", "--max-wait-ms", "1500"),
    )
    yield running
    running.kill()
