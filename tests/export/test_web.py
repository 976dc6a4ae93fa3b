"""Pages that classify in a browser: the same bytes after the resize, the same answers, nothing from another host."""

import base64
import functools
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import effnet
from effnet.cli import main
from effnet.data.packed import RawImage
from effnet.data.preprocessing import INTERPOLATIONS, Preprocessing
from effnet.data.transforms import ValTransform
from effnet.export import web
from effnet.export.onnx import export_onnx
from effnet.runtime.errors import UserError
from effnet.weights import WeightsMetadata
from tests.browser import NARROW, WIDE, Browser
from tests.export.test_quantized import calibrated
from tests.quantization.test_layers import small

pytest.importorskip("onnxruntime", reason="extra onnx")

ASSETS = Path(web.__file__).parent / "assets"
PHOTOGRAPHS = 20
SIDE = 64
STATE = "document.getElementById('state')?.textContent"
DROP = """
const data = new DataTransfer();
for (const [name, content, type] of arguments[0]) {
  const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
  data.items.add(new File([bytes], name, {type}));
}
document.getElementById("drop").dispatchEvent(
  new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
"""
CARDS = """return [...document.querySelectorAll("#answers article")].map(card => ({
  name: card.querySelector("h3").textContent,
  facts: card.querySelector(".facts").textContent,
  bad: [...card.querySelectorAll(".bad")].map(each => each.textContent),
  rows: [...card.querySelectorAll(".row")].map(row => [...row.children].map(each => each.textContent)),
}))"""
PREPARE = """
import {readFileSync, writeFileSync} from "node:fs";
const {prepared} = await import(process.argv[2]);
for (const {file, width, height, preprocessing} of JSON.parse(readFileSync(process.argv[3]))) {
  writeFileSync(file + ".out", prepared({data: readFileSync(file), width, height}, preprocessing));
}
"""


def require(*programs: str) -> None:
    """Skip the test where a program is missing, except in CI, which installs it."""
    missing = [name for name in programs if shutil.which(name) is None]
    if missing and os.environ.get("CI"):
        pytest.fail(f"{missing} missing: apt-get install nodejs npm")
    if missing:
        pytest.skip(f"{missing} missing: apt-get install nodejs npm")


def test_the_resize_returns_the_same_bytes(tmp_path: Path) -> None:
    require("node")
    random, cases, expected = np.random.default_rng(0), [], []
    sizes = [(64, 400), (300, 47), (5, 9), (48, 48), (333, 500), (700, 100), (31, 1000)]
    for index, ((height, width), kind) in enumerate((s, k) for s in sizes for k in INTERPOLATIONS):
        preprocessing = Preprocessing(*((31, 48) if index % 3 else (40, 40)), interpolation=kind)
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        file = tmp_path / f"{index}.raw"
        file.write_bytes(pixels.tobytes())
        cases.append(
            {
                "file": str(file),
                "width": width,
                "height": height,
                "preprocessing": preprocessing.to_dict(),
            }
        )
        expected.append(ValTransform(preprocessing)(RawImage(pixels)))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    (tmp_path / "prepare.mjs").write_text(PREPARE)
    module = (ASSETS / "preprocess.js").as_uri()
    subprocess.run(["node", str(tmp_path / "prepare.mjs"), module, str(tmp_path / "cases.json")], check=True)
    for case, right in zip(cases, expected, strict=True):
        found = np.frombuffer(Path(f"{case['file']}.out").read_bytes(), np.uint8).reshape(right.shape)
        assert np.array_equal(found, right), case


@pytest.fixture(scope="module")
def int8_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small INT8 model of three classes, whose input is normalised float32."""
    metadata = WeightsMetadata(
        "efficientnet-quant-lite0", Preprocessing(SIDE, SIDE + 8).to_dict(), classes=("red", "green", "blue")
    )
    pixels = torch.randint(
        0, 256, (40, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    torch.manual_seed(0)
    network = small("efficientnet-quant-lite0")
    network.reset_classifier(3)
    model = calibrated(network, "onnxruntime", pixels, metadata)
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    export_onnx(model, metadata, path)
    return path


@pytest.fixture(scope="module")
def folder(int8_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of Lite0 with its published weights in FP32 and of the small INT8 model."""
    require("npm", "node")
    root = tmp_path_factory.mktemp("web")
    assert main(["export", "web", str(root / "page"), "--also", str(int8_file), "--cpu"]) == 0
    return root / "page"


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Address of a plain static server of the folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def opened(browser: Browser, address: str, size: tuple[int, int] = WIDE, *, dark: bool = False) -> None:
    browser.open(address, size, dark=dark)
    browser.wait(f"{STATE} === 'ready'", 120)


def drop(browser: Browser, files: list[tuple[str, bytes, str]]) -> dict[str, Any]:
    """Drop files on the page, and return its cards by name."""
    browser.run(DROP, [[name, base64.b64encode(data).decode(), kind] for name, data, kind in files])
    browser.wait(f"{STATE} === 'done'", 300)
    return {card["name"]: card for card in browser.run(CARDS)}


def messages(browser: Browser) -> list[str]:
    """Return the console's messages but the browser's own about a GPU that is not there."""
    return [each for each in browser.messages() if "No available adapters" not in each]


@pytest.mark.slow
def test_photographs_get_pytorch_s_answers(
    folder: Path, address: str, browser: Browser, shared_dir: Path
) -> None:
    files = sorted((shared_dir / "data/imagenet-sample/val").rglob("*.JPEG"))[:PHOTOGRAPHS]
    assert len(files) == PHOTOGRAPHS
    opened(browser, address)
    cards = drop(browser, [(file.name, file.read_bytes(), "image/jpeg") for file in files])
    classifier = effnet.load("efficientnet-lite0", device="cpu")
    for file, answer in zip(files, classifier(list(files)), strict=True):
        rows = cards[file.name]["rows"]
        assert [name for name, _ in rows[:1]] == [answer.best.name]
        shown = [float(percent.split()[0]) for _, percent in rows]
        assert shown == pytest.approx([100 * each.probability for each in answer.predictions], abs=0.3)
    assert browser.run(
        "return crossOriginIsolated"
    )  # by the service worker: the server has sent no such header
    assert messages(browser) == []
    assert browser.foreign_requests() == []


@pytest.mark.slow
def test_the_int8_model_and_files_of_other_kinds(
    folder: Path, int8_file: Path, address: str, browser: Browser
) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (90, 120, 4), dtype=np.uint8)
    transparent = Image.fromarray(noise, "RGBA")
    sideways = Image.fromarray(noise[..., :3])
    exif = sideways.getexif()
    exif[0x0112] = 6
    files = []
    for name, image, kind, more in (
        ("transparent.png", transparent, "png", {}),
        ("sideways.jpg", sideways, "jpeg", {"exif": exif, "quality": 95}),
        ("grey.png", sideways.convert("L"), "png", {}),
    ):
        content = io.BytesIO()
        image.save(content, kind, **more)
        files.append((name, content.getvalue(), f"image/{kind}"))
    opened(browser, address)
    browser.run("document.querySelectorAll('input[name=model]')[1].click()")
    browser.wait(f"{STATE} === 'ready'")
    cards = drop(browser, [*files, ("broken.jpg", b"nothing", "image/jpeg")])
    assert "can't be decoded" in cards["broken.jpg"]["bad"][0]
    classifier = effnet.load(str(int8_file), device="cpu")
    for name, data, _ in files:
        assert cards[name]["facts"].startswith("efficientnet-quant-lite0-int8: ")
        answer = classifier(Image.open(io.BytesIO(data)))
        shown = {row[0]: float(row[1].split()[0]) for row in cards[name]["rows"]}
        # Between runtimes, rounding of INT8 moves a probability by one or two levels.
        assert shown == pytest.approx(
            {each.name: 100 * each.probability for each in answer.predictions}, abs=3
        )
    browser.run("document.getElementById('measure').click()")
    browser.wait(f"{STATE}.startsWith('measured')", 120)
    times = browser.run(
        "return [...document.querySelectorAll('#models tr')].map(e => e.lastChild.textContent)"
    )
    assert len(times) == 2
    assert all(time.endswith(" ms") for time in times)
    assert messages(browser) == []


@pytest.mark.slow
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everybody_can_use_it(
    address: str, browser: Browser, size: tuple[int, int], dark: bool, tmp_path: Path
) -> None:
    opened(browser, address, size, dark=dark)
    content = io.BytesIO()
    Image.new("RGB", (300, 200), (200, 30, 30)).save(content, "png")
    drop(browser, [("red.png", content.getvalue(), "image/png"), ("broken.jpg", b"nothing", "image/jpeg")])
    assert browser.violations() == []
    assert browser.run("return document.documentElement.scrollWidth") <= size[0]
    browser.screenshot(tmp_path / "page.png")


@pytest.mark.slow
def test_it_works_offline_once_it_was_open(folder: Path, browser: Browser) -> None:
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    opened(browser, address)
    server.shutdown()
    server.server_close()
    opened(browser, address)
    assert messages(browser) == []


@pytest.mark.slow
def test_a_photograph_of_the_camera(address: str, browser: Browser) -> None:
    opened(browser, address)
    browser.run(
        """const canvas = document.createElement("canvas");
        canvas.width = 320;
        canvas.height = 240;
        const context = canvas.getContext("2d");
        setInterval(() => { context.fillStyle = "red"; context.fillRect(0, 0, 320, 240); }, 50);
        navigator.mediaDevices.getUserMedia = async () => canvas.captureStream();
        document.getElementById("camera").click()"""
    )
    browser.wait("document.getElementById('viewfinder').open && document.getElementById('video').videoWidth")
    browser.run("document.getElementById('shoot').click()")
    browser.wait(f"{STATE} === 'done'")
    (card,) = browser.run(CARDS)
    assert card["name"].startswith("camera ")
    assert len(card["rows"]) == 5
    assert browser.run("return document.getElementById('video').srcObject") is None


@pytest.mark.slow
def test_a_folder_with_other_answers_is_not_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model = tmp_path / "model.onnx"
    export_onnx(
        small("efficientnet-lite0"),
        WeightsMetadata("efficientnet-lite0", Preprocessing(SIDE, SIDE).to_dict()),
        model,
    )
    right = web.models.example_image
    monkeypatch.setattr(web.models, "example_image", lambda given: np.ascontiguousarray(right(given)[::-1]))
    command = ["export", "web", str(tmp_path / "page"), "--pretrained-from-file", str(model), "--no-webgpu"]
    assert main(command) == 2
    assert "not written, its logits differ from PyTorch's" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [model]


def test_a_folder_that_is_not_empty(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    assert main(["export", "web", str(tmp_path)]) == 2
    assert f"{tmp_path}: exists and is not an empty folder" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("files", "told"),
    [({}, "holds no ort.wasm.min.mjs"), ({"ort.wasm.min.mjs": b"other"}, "is not that of onnxruntime-web@")],
)
def test_another_package_is_refused(files: dict[str, bytes], told: str, tmp_path: Path) -> None:
    packed = tmp_path / "package.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    with pytest.raises(UserError, match=told):
        web.runtime.copy_runtime(tmp_path, source=packed)


def test_npm_is_missing_or_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFNET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="npm is not installed.* by --runtime FILE"):
        web.runtime.copy_runtime(tmp_path)
    npm = tmp_path / "npm"
    npm.write_text(
        "#!/bin/sh\necho 'npm error code ENOTFOUND' >&2\necho 'npm error no network' >&2\nexit 1\n"
    )
    npm.chmod(0o755)
    with pytest.raises(UserError, match="npm can't download onnxruntime-web@.*: no network; run `npm pack"):
        web.runtime.copy_runtime(tmp_path)
