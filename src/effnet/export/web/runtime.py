"""onnxruntime-web, the runtime of exported pages: taken from its npm package, verified, kept in the cache."""

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from pathlib import Path

from effnet.runtime.cache import cache_dir, writable_cache
from effnet.runtime.errors import UserError, one_line
from effnet.runtime.files import atomic_file

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
_SPECIFIER = f"{PACKAGE}@{VERSION}"
_KEPT_IN, _FILE = "npm", f"{PACKAGE}-{VERSION}.tgz"
_DOWNLOAD_S = 900

# SHA-256 of the files of this version in the package's folder `dist`.
WASM_FILES = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
WEBGPU_FILES = {
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}


def copy_runtime(target: Path, *, source: Path | None = None, webgpu: bool = True) -> None:
    """Copy the runtime's files into a folder.

    Args:
        target: an existing folder.
        source: the npm package, as a folder or as the .tgz file that `npm pack` writes; a folder with it in
            `node_modules` will do. None for the cache, which npm fills.
        webgpu: also the files for WebGPU.

    Raises:
        UserError: npm is missing or fails, or the files are not those of `VERSION`.
    """
    wanted = WASM_FILES | (WEBGPU_FILES if webgpu else {})
    found = _cached(wanted) if source is None else _contents(source, wanted)
    for name, content in found.items():
        (target / name).write_bytes(content)


def why_none(install: bool) -> str | None:
    """Return why the runtime can't be had here, in one line with the remedy; None where it can.

    Args:
        install: npm may download it.
    """
    if (cache_dir() / _KEPT_IN / _FILE).is_file():
        return None
    if not install:
        return f"{_SPECIFIER} is not in the cache; --install lets npm put it there (33 MB)"
    return None if shutil.which("npm") else "npm, which downloads the runtime, is not there; install Node.js"


def _cached(wanted: dict[str, str]) -> dict[str, bytes]:
    """Return the files of the package in the cache, which npm downloads if it is not there or damaged."""
    folder = writable_cache(_KEPT_IN)
    if folder is None:
        raise UserError(
            f"no cache to keep {_SPECIFIER} in; EFFNET_HOME names its folder, or give --runtime FILE"
        )
    kept = folder / _FILE
    if kept.is_file():
        with suppress(UserError):
            return _contents(kept, wanted)
    with tempfile.TemporaryDirectory() as scratch:
        packed = _packed_by_npm(Path(scratch))
        found = _contents(packed, wanted)
        with atomic_file(kept) as file, packed.open("rb") as content:
            shutil.copyfileobj(content, file)
    return found


def _packed_by_npm(scratch: Path) -> Path:
    npm = shutil.which("npm")
    elsewhere = f"run `npm pack {_SPECIFIER}` elsewhere and give the file that it writes by --runtime FILE"
    if npm is None:
        raise UserError(
            f"npm is not installed, which downloads {_SPECIFIER}; install Node.js, or {elsewhere}"
        )
    command = [npm, "pack", _SPECIFIER, "--pack-destination", str(scratch), "--loglevel", "error"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_DOWNLOAD_S
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"npm did not download {_SPECIFIER} in {_DOWNLOAD_S} s; {elsewhere}") from None
    packed = scratch / _FILE
    if done.returncode or not packed.is_file():
        said = one_line((done.stderr or done.stdout).strip().rpartition("npm error")[2])
        raise UserError(
            f"npm can't download {_SPECIFIER}: {said or f'exit code {done.returncode}'}; {elsewhere}"
        )
    return packed


def _contents(source: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    """Return the files of a package by name.

    Raises:
        UserError: one is missing, or is not that of `VERSION`.
    """
    found = _from_folder(source, wanted) if source.is_dir() else _from_archive(source, wanted)
    for name, digest in wanted.items():
        if name not in found:
            raise UserError(
                f"{source}: holds no {name}; give the folder or the file of `npm pack {_SPECIFIER}`"
            )
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise UserError(f"{source}: its {name} is not that of {_SPECIFIER}; get this version by npm pack")
    return found


def _from_folder(source: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    for folder in (source / "node_modules" / PACKAGE / "dist", source / "package" / "dist", source / "dist"):
        if folder.is_dir():
            source = folder
            break
    return {name: (source / name).read_bytes() for name in wanted if (source / name).is_file()}


def _from_archive(source: Path, wanted: dict[str, str]) -> dict[str, bytes]:
    try:
        with tarfile.open(source) as archive:
            members = {f"package/dist/{name}": name for name in wanted}
            return {
                members[member.name]: file.read()
                for member in archive
                if member.name in members and (file := archive.extractfile(member)) is not None
            }
    except (OSError, tarfile.TarError, EOFError) as error:
        raise UserError(f"{source}: can't be read as a file of npm pack: {one_line(error)}") from None
