"""The readers that are fuzzed: each with valid files, a way to change what they hold, and what it may raise."""

import functools
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from PIL import Image

from effnet.data.decode import BadImageError, EncodedImage, Region
from effnet.data.files import LocalFiles
from effnet.data.folder import ImageFolder
from effnet.data.packed import PackedImages
from effnet.data.packed_index import FORMAT, INDEX, RECORD, RECORDS, VERSION
from effnet.data.preprocessing import Preprocessing
from effnet.data.sources import open_splits
from effnet.data.verified import Memory
from effnet.kernels import choose
from effnet.models.efficientnet import EfficientNet
from effnet.recipe import Recipe, read_recipe
from effnet.recipe.catalog import ROOT
from effnet.recipe.cfg_file import configured
from effnet.runtime.errors import UserError
from effnet.runtime.log import RunLog
from effnet.training.checkpoint import read_checkpoint
from effnet.training.foreign_checkpoint import training_state
from effnet.training.resume import inherited_settings
from effnet.weights import WeightsMetadata, create_model, detect_layout, read_weights
from effnet.weights.hub_config import metadata_beside
from effnet.weights.metadata import parse_metadata
from tests.fuzz.mutations import SHARED_JUNK, TENSOR_JUNK, changed_bytes, changed_value
from tests.runs import PREPROCESSING


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes:
        name: in reports.
        make: writes a changed input into a folder.
        read: reads it.
        refuses: the documented errors.
    """

    name: str
    make: Callable[[Random, Path], None]
    read: Callable[[Path], object]
    refuses: tuple[type[Exception], ...] = (UserError,)


METADATA = {
    "model": "efficientnet-lite0",
    "preprocessing": PREPROCESSING,
    "classes": ["cat", "dog"],
    "top1": 50.0,
    "format": 2,
}


def _metadata(draw: Random, folder: Path) -> None:
    if draw.random() < 0.5:
        text = _dumped(changed_value(draw, METADATA))
    else:
        text = changed_bytes(
            draw, [json.dumps(METADATA).encode()], [b"[" * 5000, b"9" * 5000, b"NaN", b"1e999"]
        )
    (folder / "metadata.json").write_bytes(text)


def _read_metadata(folder: Path) -> object:
    text = (folder / "metadata.json").read_bytes()
    metadata = WeightsMetadata.from_dict(parse_metadata(text.decode("utf-8", "surrogateescape")))
    return Preprocessing.from_dict(metadata.preprocessing), metadata.to_dict(), metadata.class_names()


HUB_CONFIGS: list[dict[str, Any]] = [
    {"architecture": "efficientnet-widese-b0", "effnet": METADATA},
    {
        "architecture": "tf_efficientnet_lite0",
        "num_classes": 2,
        "label_names": ["cat", "dog"],
        "model_args": {"bn_eps": 0.001, "pad_type": "same"},
        "pretrained_cfg": {
            "input_size": [3, 32, 32],
            "test_input_size": [3, 64, 64],
            "crop_pct": 0.9,
            "interpolation": "bicubic",
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "tag": "in1k",
        },
    },
]


def _hub_config(draw: Random, folder: Path) -> None:
    values = draw.choice(HUB_CONFIGS)
    if draw.random() < 0.7:
        text = _dumped(changed_value(draw, values))
    else:
        text = changed_bytes(
            draw, [json.dumps(values).encode()], [b"[" * 5000, b"9" * 5000, b"NaN", b"1e999"]
        )
    (folder / "config.json").write_bytes(text)


def _read_hub_config(folder: Path) -> object:
    metadata = metadata_beside(folder / "model.safetensors")
    return metadata and (Preprocessing.from_dict(metadata.preprocessing), metadata.to_dict())


def _dumped(value: object) -> bytes:
    try:
        return json.dumps(value).encode()
    except (ValueError, RecursionError):  # a number or a depth that JSON itself does not take
        return b"[" * 3000


STATE = {"layers.0.block0.proj.conv.weight": torch.ones(2, 2), "stem.bn.num_batches_tracked": torch.tensor(3)}


def _checkpoint_content() -> dict[str, Any]:
    progress = {"epoch": 1, "step": 9, "best_top1": 10.0, "best_value": None, "best_is_ema": False}
    return {
        "arch": "efficientnet-lite0",
        "epoch": 1,
        "recipe": Recipe().to_dict(),
        "metadata": METADATA,
        "state_dict": dict(STATE),
        "optimizer": {"stem.conv.weight": {"square_avg": torch.ones(2), "momentum_buffer": torch.ones(2)}},
        "loss_scaler": {"scale": 128.0, "_growth_tracker": 3},
        "progress": progress,
        "loader": {"epoch": 1, "step": 0},
        "random_states": {"cpu": torch.zeros(5056, dtype=torch.uint8)},
    }


def _foreign_content() -> dict[str, Any]:
    groups = [{"params": [0], "lr": 0.1}]
    optimizer = {"state": {0: {"square_avg": torch.ones(2)}}, "param_groups": groups}
    return {"arch": "efficientnet-b0", "epoch": 3, "state_dict": dict(STATE), "optimizer": optimizer}


def _saved(content: object, *, old: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


_WORDS_OF_PICKLES = (
    b"cposix\nsystem\n",
    b"cbuiltins\nbytearray\n",
    b"}" * 99,
    b"R",
    b"b",
    b"0",
    b"X\xff\xff\xff\x7f",
)


def _checkpoint(draw: Random, folder: Path) -> None:
    content = draw.choice((_checkpoint_content, _foreign_content))()
    if draw.random() < 0.6:
        written = _tried(lambda: _saved(changed_value(draw, content, TENSOR_JUNK)), _saved(None))
    else:
        seeds = [_saved(content), _saved(content, old=True)]
        written = changed_bytes(draw, seeds, _WORDS_OF_PICKLES)
    (folder / "c.pth.tar").write_bytes(written)


def _read_checkpoint(folder: Path) -> object:
    path = folder / "c.pth.tar"
    content = read_checkpoint(path)
    inherited_settings(path)
    if "recipe" not in content:
        training_state(content, _model(), {}, 10)
    return content


@functools.cache
def _model() -> EfficientNet:
    return create_model("efficientnet-lite0", num_classes=2)


def _tried(write: Callable[[], bytes], otherwise: bytes) -> bytes:
    """Return a file, or another where a value is none that the format takes."""
    try:
        return write()
    except Exception:
        return otherwise


def _weights(draw: Random, folder: Path) -> None:
    form = draw.randrange(4)
    tensors = {"conv_stem.weight": torch.ones(2, 2), "b": torch.ones(3)}
    if form == 0:
        content = changed_value(draw, {"state_dict": tensors, "metadata": METADATA}, TENSOR_JUNK)
        written, name = _tried(lambda: _saved(content), _saved(None)), "w.pth"
    elif form == 1:
        seeds = [_saved(tensors), _saved(tensors, old=True), _saved({"state_dict": tensors})]
        written, name = changed_bytes(draw, seeds, _WORDS_OF_PICKLES), "w.pth"
    else:
        written, name = _safetensors(draw, tensors, by_header=form == 2), "w.safetensors"
    for old in folder.glob("w.*"):
        old.unlink()
    (folder / name).write_bytes(written)


def _safetensors(draw: Random, tensors: dict[str, torch.Tensor], *, by_header: bool) -> bytes:
    seed = safetensors.torch.save(tensors, {"format": "pt", "effnet": json.dumps(METADATA)})
    if not by_header:
        return changed_bytes(draw, [seed], [b"[" * 999, b"data_offsets", b'"F64"', b'"BF16"', b"9" * 30])
    (size,) = struct.unpack("<Q", seed[:8])
    header = _dumped(changed_value(draw, json.loads(seed[8 : 8 + size])))
    return struct.pack("<Q", len(header)) + header + seed[8 + size :]


def _read_weights(folder: Path) -> object:
    (path,) = folder.glob("w.*")
    file = read_weights(path)
    try:
        return detect_layout(file.state_dict)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _recipe_seeds() -> list[bytes]:
    seeds = [path.read_bytes() for path in sorted(ROOT.glob("*/*.yaml"))[:3]]
    cfg = (
        "precision: {AMP: &amp {amp: true}}\nplatform: {DGXA100: {workers: 10}}\nmode: {convergence: {epochs: 3}}\n"
        "models: {efficientnet-b0: {DGXA100: {AMP: {<<: *amp, arch: efficientnet-b0, batch_size: 256}}}}\n"
    )
    return [*seeds, cfg.encode(), (ROOT / "base.yaml").read_bytes()]


_WORDS_OF_YAML = (
    *(
        b"&a ",
        b"*a",
        b"<<: ",
        b"!!python/name:os.system ",
        b"!!binary ",
        b"!!int ",
        b"!!float ",
        b"!!timestamp ",
    ),
    *(
        b"!!set ",
        b"!!omap ",
        b"? ",
        b"- ",
        b": ",
        b"[",
        b"{",
        b"\t",
        b"|\n",
        b"---\n",
        b"%YAML 1.2\n",
        b".nan",
    ),
    *(b"0x", b"1:1:1", b"2001-01-01", b"~", b"'", b'"\\x', b"#", b"[" * 500, b"9" * 200, b"\xff", b"\n  "),
)


def _recipe(draw: Random, folder: Path) -> None:
    if draw.random() < 0.4:
        value = changed_value(draw, Recipe().to_dict(), SHARED_JUNK)
        written = _tried(
            lambda: yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "replace"), b"[" * 99
        )
    else:
        written = changed_bytes(draw, _recipe_seeds(), _WORDS_OF_YAML)
    (folder / "recipe.yaml").write_bytes(written)


def _read_recipe(folder: Path) -> object:
    path = folder / "recipe.yaml"
    try:
        return configured(path, "efficientnet-b0/DGXA100/AMP")
    except UserError:
        return Recipe().replace(read_recipe(path)).to_dict()


def _image_seeds() -> list[bytes]:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    options: tuple[tuple[str, Image.Image, dict[str, Any]], ...] = (
        ("JPEG", image, {}),
        ("JPEG", image, {"progressive": True, "exif": exif}),
        ("JPEG", image.convert("L"), {"restart_marker_blocks": 2}),
        ("JPEG", image.convert("CMYK"), {}),
        ("PNG", image, {"exif": exif}),
        ("PNG", image.convert("P"), {}),
        ("GIF", image, {}),
        ("BMP", image, {}),
        ("TIFF", image, {"compression": "tiff_lzw"}),
        ("WEBP", image, {}),
    )
    seeds = []
    for form, picture, how in options:
        buffer = io.BytesIO()
        picture.save(buffer, form, **how)
        seeds.append(buffer.getvalue())
    return seeds


_IMAGES = _image_seeds()
_WORDS_OF_IMAGES = (
    *(
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xc4",
        b"\xff\xda",
        b"\xff\xdb",
        b"\xff\xdd\x00\x04",
    ),
    *(
        b"\xff\xe1\x00\x10Exif\0\0",
        b"IHDR",
        b"IDAT",
        b"IEND",
        b"PLTE",
        b"tRNS",
        b"acTL",
        b"zTXt",
        b"iCCP",
        b"RIFF",
    ),
)


def _image(draw: Random, folder: Path) -> None:
    (folder / "image.jpg").write_bytes(changed_bytes(draw, _IMAGES, _WORDS_OF_IMAGES))


def _read_image(folder: Path) -> object:
    image = EncodedImage(folder / "image.jpg")
    image.verify()
    image.crop(Region(0, 0, max(1, image.height // 2), max(1, image.width // 2)), 8)
    return image.decode()


def _packed(draw: Random, folder: Path) -> None:
    is_raw = draw.random() < 0.5
    images = [bytes(12)] * 2 if is_raw else [_IMAGES[0], _IMAGES[2]]
    shard = b"".join(images)
    rows = [
        (0, target, sum(map(len, images[:target])), len(data), *((2, 2) if is_raw else (24, 32)), 24, 32)
        for target, data in enumerate(images)
    ]
    records = np.array(rows, RECORD)
    buffer = io.BytesIO()
    np.save(buffer, records)
    index: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "settings": {"size": 32, "quality": None if is_raw else 95},
        "classes": ["cat", "dog"],
        "records_sha256": sha256(buffer.getvalue()).hexdigest(),
        "shards": [
            {"name": "000000.tar", "images": 2, "bytes": len(shard), "sha256": sha256(shard).hexdigest()}
        ],
        "left_out": {},
    }
    table = buffer.getvalue()
    form = draw.randrange(3)
    if form == 0:  # records that are wrong under a digest that is right
        table = changed_bytes(draw, [table], [b"'|O'", b"'<f8'", b"(99999999999,)"])
        index["records_sha256"] = sha256(table).hexdigest()
    written = _dumped(changed_value(draw, index) if form == 1 else index)
    if form == 2:
        written = changed_bytes(draw, [written], [b"../", b"[" * 999, b"9" * 30])
    (folder / INDEX).write_bytes(written)
    (folder / RECORDS).write_bytes(table)
    (folder / "000000.tar").write_bytes(shard)


def _read_packed(folder: Path) -> object:
    images = PackedImages.open(LocalFiles(folder))
    images.with_classes(["dog", "cat"])
    return [opened().decode() for opened in images.read(range(len(images)))]


def _archives() -> dict[str, bytes]:
    tar, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as of_tar, zipfile.ZipFile(zipped, "w") as of_zip:
        for number, name in enumerate(
            ("a/train/cat/1.jpg", "a/train/dog/" + "x" * 120 + ".png", "a/val/cat/2.jpg")
        ):
            member = tarfile.TarInfo(name)
            member.size = len(_IMAGES[number])
            of_tar.addfile(member, io.BytesIO(_IMAGES[number]))
            of_zip.writestr(name, _IMAGES[number], (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2])
    return {"a.tar": tar.getvalue(), "a.zip": zipped.getvalue()}


_ARCHIVES = _archives()


def _archive(draw: Random, folder: Path) -> None:
    for old in folder.glob("a.*"):
        old.unlink()
    name = draw.choice(sorted(_ARCHIVES))
    words = [
        b"PK\x01\x02",
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PK\x06\x06",
        b"ustar\x0000",
        b"x",
        b"L",
        b"S",
        b"7777777",
    ]
    (folder / name).write_bytes(changed_bytes(draw, [_ARCHIVES[name]], words))


def _read_archive(folder: Path) -> object:
    (path,) = folder.glob("a.*")
    opened = open_splits(Recipe(), path)
    read = []
    for images in opened.images.values():
        for open_image in images.read(range(len(images))):
            with suppress(BadImageError):
                read.append(open_image().decode())
    return read


_LINE = b'{"type": "epoch", "time": 1.5, "epoch": 0, "step": null, "data": {"val.top1": 50.0}}\n'


def _log(draw: Random, folder: Path) -> None:
    (folder / "report.json").write_bytes(
        changed_bytes(draw, [_LINE * 3], [b"\n", b"\r\n", b"\0" * 64, b"\xff"])
    )


def _read_log(folder: Path) -> object:
    path = folder / "report.json"
    with RunLog(path, append=True) as log:
        log.record("epoch", {"val.top1": 51.0}, epoch=1)
    return path.read_bytes()


def _cache(draw: Random, folder: Path) -> None:
    verdict = {"cpu, eager": {"8x32x16x16 3x3/1": {"tile": None, "library": 1.5, "kernel": 2.5}}}
    written = _dumped(changed_value(draw, verdict))
    if draw.random() < 0.5:
        written = changed_bytes(draw, [_dumped(verdict)], [b"[" * 9999, b"9" * 5000, b"NaN"])
    (folder / "kernels.json").write_bytes(written)
    buffer = io.BytesIO()
    np.save(buffer, np.arange(9, dtype=np.uint64))
    memory = _memory(folder)._file
    memory.parent.mkdir(exist_ok=True)
    memory.write_bytes(
        changed_bytes(draw, [buffer.getvalue()], [b"'|O'", b"'<f4'", b"(99999999999,)", b"(3, 3)"])
    )


def _memory(folder: Path) -> Memory:
    names, none = np.empty(0, np.uint8), np.empty(0, np.int32)
    return Memory(folder / "decodable", ImageFolder(folder, [], none, names, none.astype(np.int64)))


def _read_cache(folder: Path) -> object:
    keys = _memory(folder).read()
    assert keys.dtype == np.uint64
    known = choose._read(folder / "kernels.json")
    return [verdict.library for verdicts in known.values() for verdict in verdicts.values()]


READERS: Sequence[Reader] = (
    Reader("checkpoint", _checkpoint, _read_checkpoint),
    Reader("weights", _weights, _read_weights),
    Reader("metadata", _metadata, _read_metadata),
    Reader("hub configuration", _hub_config, _read_hub_config),
    Reader("recipe", _recipe, _read_recipe),
    Reader("image", _image, _read_image, (BadImageError,)),
    Reader("packed index", _packed, _read_packed, (UserError, BadImageError)),
    Reader("archive", _archive, _read_archive),
    Reader("JSON log", _log, _read_log),
    Reader("cache", _cache, _read_cache, ()),
)
