"""Draw the pictures of the documentation, from a folder in which `tools/tutorial.py` has run.

python tools/tutorial.py FOLDER
python -m tools.pictures FOLDER --photos PHOTO... [--only NAME...]

The photographs of the pages are chelsea.png and coffee.png of scikit-image, CC0 by Stefan van der Walt and Rachel
Michetti: whatever is drawn here is published.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import effnet

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
LARGEST = 100_000
"""bytes of a picture"""

_INT8 = "digits-int8.onnx"
_DESKTOP = (1100, 760)
_SERVER = (760, 720)
_TERMINAL = """<!doctype html><meta charset="utf-8"><style>body {{margin: 0; background: {background}}}
pre {{margin: 0; padding: 16px; font: 15px/1.25 "DejaVu Sans Mono", monospace; color: {foreground}; width: max-content}}
</style><pre>{code}</pre>"""


@dataclass(frozen=True)
class Sources:
    """Files that pictures are made of.

    Attributes:
        folder: where the tutorial has run.
        run: a run's folder.
        data: the images that it was trained on.
        photos: photographs that may be published.
    """

    folder: Path
    run: Path
    data: Path
    photos: Sequence[Path]

    def call(self, *arguments: object) -> None:
        """Run `effnet` in the folder."""
        subprocess.run([sys.executable, "-m", "effnet", *map(str, arguments)], cwd=self.folder, check=True)


def digits(sources: Sources, path: Path) -> None:
    """Draw validation images of every class with the INT8 model's answers."""
    from matplotlib.figure import Figure
    from PIL import Image

    classifier = effnet.load(sources.folder / _INT8)
    figure = Figure(figsize=(8, 2.6), dpi=110, layout="constrained")
    axes = figure.subplots(2, 10)
    for column in range(10):
        for row, file in enumerate(sorted((sources.data / f"val/{column}").iterdir())[:2]):
            best = classifier(file).best
            place = axes[row][column]
            place.imshow(Image.open(file))
            place.set_axis_off()
            place.set_title(f"{best.name}\n{100 * best.probability:.0f} %", fontsize=9)
    figure.savefig(path)


def reliability(sources: Sources, path: Path) -> None:
    """Draw the reliability diagram of `effnet evaluate`."""
    sources.call(
        "evaluate", sources.data, "--resume", sources.run / "model_best.pth.tar", "--reliability", path
    )


def find_lr(sources: Sources, path: Path) -> None:
    """Draw the loss by learning rate of `effnet find-lr`."""
    flags = "--recipe recipe.yaml --hflip 0 --crop-scale 0.7 1 --plot"
    sources.call("find-lr", sources.data, *flags.split(), path)


def heat_map(sources: Sources, path: Path) -> None:
    """Draw photographs beside the heat maps of `effnet classify --explain`."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as maps:
        sources.call("classify", "--explain", maps, *sources.photos)
        explained = [next(Path(maps).rglob(f"{photo.name}*")) for photo in sources.photos]
        pictures = [
            Image.open(file).convert("RGB")
            for pair in zip(sources.photos, explained, strict=True)
            for file in pair
        ]
    height = 220
    scaled = [each.resize((each.width * height // each.height, height)) for each in pictures]
    gap = 6
    strip = Image.new("RGB", (sum(each.width + gap for each in scaled) - gap, height), "white")
    left = 0
    for each in scaled:
        strip.paste(each, (left, 0))
        left += each.width + gap
    strip.save(path, quality=85)


def report(sources: Sources, path: Path) -> None:
    """Draw the top of the page of `effnet report` in a desktop's window."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        sources.call("report", sources.run, "--output", page)
        _photograph(page.as_uri(), path, "document.querySelectorAll('svg, canvas').length > 3")


def compare(sources: Sources, path: Path) -> None:
    """Draw the top of the page of `effnet compare`: a run's weights against the INT8 file."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "compare.html"
        model, data = (os.path.relpath(each, sources.folder) for each in (sources.run, sources.data))
        sources.call("compare", f"{model}/model_best.pth.tar", _INT8, "--data", data, "--output", page)
        _photograph(page.as_uri(), path, "document.readyState === 'complete'")


def confusion(sources: Sources, path: Path) -> None:
    """Draw the confusion matrix of `effnet evaluate`."""
    model = sources.run / "model_best.pth.tar"
    sources.call("evaluate", sources.data, "--resume", model, "--confusion", path)


def serve(sources: Sources, path: Path) -> None:
    """Draw the page of `effnet serve` with answered photographs."""
    command = [sys.executable, "-m", "effnet", "serve", "--port", "0", "--cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            address = next(word for word in server.stdout.readline().split() if word.startswith("http"))
            done = "document.getElementById('state').textContent === 'done'"
            _photograph(address, path, done, size=_SERVER, files=sources.photos)
        finally:
            server.terminate()


def watch(sources: Sources, path: Path) -> None:
    """Draw what `effnet watch` shows of a run on a terminal of 80 columns."""
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    from tests.terminal import on_terminal

    command = [sys.executable, "-m", "effnet", "watch", "--once", str(sources.run)]
    with on_terminal(command, os.environ) as terminal:
        assert terminal.rest() == 0
        shown = terminal.shown.replace("\r", "")
    console = Console(record=True, width=80, file=io.StringIO())
    console.print(Text.from_ansi(f"$ effnet watch runs/{sources.run.name}\n{shown.rstrip()}"))
    page = console.export_html(theme=MONOKAI, code_format=_TERMINAL, inline_styles=True)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "terminal.html"
        file.write_text(page, encoding="utf-8")
        _photograph(file.as_uri(), path, "true", element="pre")


def _photograph(
    address: str,
    path: Path,
    ready: str,
    *,
    size: tuple[int, int] = _DESKTOP,
    files: Sequence[Path] = (),
    element: str | None = None,
) -> None:
    """Write what a desktop's browser shows, or one element of it, as a PNG with a palette.

    Args:
        address: of the page.
        path: the picture.
        ready: a JavaScript expression that becomes true.
        size: of the window.
        files: for the page's field for files.
        element: a selector.
    """
    from PIL import Image
    from selenium.webdriver.common.by import By

    from tests.browser import start_browser

    with contextlib.closing(start_browser()) as browser:
        for _ in range(2 if files else 1):  # a server's first answers take the longest
            browser.open(address, size)
            if files:
                field = browser.driver.find_element(By.CSS_SELECTOR, "input[type=file]")
                field.send_keys("\n".join(map(str, files)))
            browser.wait(ready, 600)
        browser.screenshot(path, whole=False)
        width, height = size
        if element is not None:
            script = "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            width, height = browser.run(f"{script} return [box.width, box.height]", element)
    picture = Image.open(path).convert("RGB").crop((0, 0, round(width), round(height)))
    picture.quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


DRAWN: dict[str, Callable[[Sources, Path], None]] = {
    "digits.png": digits,
    "reliability.png": reliability,
    "find-lr.png": find_lr,
    "heat-map.jpg": heat_map,
    "report.png": report,
    "compare.png": compare,
    "confusion.png": confusion,
    "serve.png": serve,
    "watch.png": watch,
}
"""file to what draws it"""


def main() -> int:
    """Draw the pictures; return the exit code."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    parser.add_argument("folder", type=Path, help="where tools/tutorial.py has run")
    parser.add_argument("--run", type=Path, help="a run [default: FOLDER/runs/digits]")
    parser.add_argument("--data", type=Path, help="its images [default: FOLDER/digits]")
    parser.add_argument(
        "--photos", type=Path, nargs="+", default=[], help="photographs that may be published"
    )
    parser.add_argument("--only", nargs="+", choices=DRAWN, default=list(DRAWN), metavar="NAME")
    given = parser.parse_args()
    folder = given.folder.resolve()
    run, data = given.run or folder / "runs/digits", given.data or folder / "digits"
    sources = Sources(folder, run.resolve(), data.resolve(), [photo.resolve() for photo in given.photos])
    PICTURES.mkdir(exist_ok=True)
    for name in given.only:
        DRAWN[name](sources, PICTURES / name)
        size = (PICTURES / name).stat().st_size
        print(f"{name}: {size} bytes")
        assert size < LARGEST, name
    return 0


if __name__ == "__main__":
    sys.exit(main())
