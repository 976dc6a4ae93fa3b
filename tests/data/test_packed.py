import json
import os
import pickle
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from effnet.data import Batch, DataRequest, DataSource, find_classes, open_data
from effnet.data import files as files_module
from effnet.data.decode import EncodedImage, Region
from effnet.data.files import LocalFiles, open_files
from effnet.data.pack import PackSettings, pack
from effnet.data.packed import PackedImages, RawImage
from effnet.data.preprocessing import Preprocessing
from effnet.recipe import Recipe
from effnet.runtime.errors import UserError
from tests.runs import resolved

from .batches import assert_same, of
from .conftest import CPU, Opened, photograph
from .packed_server import Server, serving

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="session")
def packs(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder's images packed as JPEG and as pixels, in shards of four."""
    root = tmp_path_factory.mktemp("packs")
    for name, quality in {"jpeg": 95, "raw": None}.items():
        pack(folder, root / name, PackSettings(40, quality, images_per_shard=4), workers=0)
    return {name: root / name for name in ("jpeg", "raw")}


@pytest.fixture(params=["jpeg", "raw"])
def packed(request: pytest.FixtureRequest, packs: dict[str, Path]) -> Path:
    return packs[request.param]


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(files_module, "_FIRST_PAUSE_S", 0.001)


def backend(opened: Opened, path: Path, **settings: object) -> DataSource:
    return opened(path=path, data_backend="packed", **settings)


def test_validation_has_the_folders_images(opened: Opened, packed: Path) -> None:
    folder_batches, packed_batches = (list(of(opened().val)), list(of(backend(opened, packed).val)))
    for ours, theirs in zip(packed_batches, folder_batches, strict=True):
        assert torch.equal(ours.targets, theirs.targets)
        difference = (ours.images.int() - theirs.images.int()).abs().float()
        # packed at the very size to which validation resizes
        assert difference.mean() < 1.5 if packed.name == "jpeg" else difference.max() == 0
    assert backend(opened, packed).classes == ["cat", "dog"]


def test_photographs_packed_without_loss_validate_alike(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data" / "imagenet-sample" / "val"
    if not source.is_dir():
        pytest.skip("no imagenet-sample in shared/data")
    for folder in sorted(source.iterdir())[::8]:
        (tmp_path / "in" / "val" / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:1]:
            (tmp_path / "in" / "val" / folder.name / file.name).symlink_to(file)
    preprocessing = Preprocessing(224, 256)

    def batches(backend: str, path: Path) -> list[Batch]:
        recipe = resolved(Recipe().replace({"data_backend": backend, "workers": 0}))
        return list(of(open_data(DataRequest(recipe, path, preprocessing, CPU, splits=("val",))).val))

    expected = batches("pytorch", tmp_path / "in")
    for size, most in {256: 0.0, 320: 2.0}.items():
        pack(tmp_path / "in", tmp_path / str(size), PackSettings(size, None), workers=0)
        for ours, theirs in zip(batches("packed", tmp_path / str(size)), expected, strict=True):
            assert (ours.images.int() - theirs.images.int()).abs().float().mean() <= most


@pytest.mark.parametrize("augmentation", ["none", "autoaugment"])
def test_batches_do_not_depend_on_the_number_of_workers(
    opened: Opened, packed: Path, augmentation: str
) -> None:
    settings = {"augmentation": augmentation}
    alone = of(backend(opened, packed, **settings).train)
    epochs = [list(alone), list(alone)]
    assert not torch.equal(epochs[0][0].images, epochs[1][0].images)
    for workers in (1, 3):
        loader = of(backend(opened, packed, workers=workers, **settings).train)
        assert_same(loader, epochs[0])
        assert_same(loader, epochs[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_inside_an_epoch(opened: Opened, packed: Path, workers: int) -> None:
    reference = of(backend(opened, packed).train)
    epochs = [list(reference), list(reference)]
    interrupted = of(backend(opened, packed, workers=workers).train)
    assert_same(islice(interrupted, 2), epochs[0][:2])
    resumed = of(backend(opened, packed, workers=workers).train)
    resumed.load_state_dict(interrupted.state_dict())
    assert_same(resumed, epochs[0][2:])
    assert_same(resumed, epochs[1])


_PROCESS = """
import os, sys, pickle
from pathlib import Path
import torch, torch.distributed as dist
from effnet.data import DataRequest, Preprocessing, open_data
from effnet.recipe import Recipe
from effnet.training.facts import facts_of
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
given = Recipe().replace({"data_backend": sys.argv[1], "workers": rank, "batch_size": 2, "seed": 3})
recipe = given.resolve(facts_of(given, precision="fp32", num_classes=2, world_size=world))
data = open_data(DataRequest(recipe, Path(sys.argv[2]), Preprocessing(32, 40), torch.device("cpu"), rank, world))
batches = [[(b.images, b.targets, b.indices) for b in loader] for loader in (data.train, data.val)]
gathered = [None] * world
dist.all_gather_object(gathered, batches)
if rank == 0:
    torch.save(gathered, sys.argv[3])
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pytorch", "packed"])
def test_two_processes_share_what_one_sees(
    opened: Opened, folder: Path, packs: dict[str, Path], tmp_path: Path, name: str
) -> None:
    path = folder if name == "pytorch" else packs["raw"]
    script = tmp_path / "process.py"
    script.write_text(_PROCESS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    out = tmp_path / "batches.pt"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [*launch, str(script), name, str(path), str(out)]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    ranks = torch.load(out)
    alone = opened(path=path, data_backend=name, batch_size=4)
    for whole, first, second in zip(of(alone.train), ranks[0][0], ranks[1][0], strict=True):
        assert torch.equal(whole.images, torch.cat([first[0], second[0]]))
        assert torch.equal(whole.targets, torch.cat([first[1], second[1]]))
    whole_val = list(of(alone.val))
    images = torch.cat([b.images for b in whole_val])
    seen = torch.cat([b[2] for rank in ranks for b in rank[1]])
    assert sorted(seen.tolist()) == list(range(7))
    assert torch.equal(images[seen], torch.cat([b[0] for rank in ranks for b in rank[1]]))


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_those_from_the_disk(opened: Opened, packed: Path, workers: int) -> None:
    local = backend(opened, packed)
    with serving(packed) as server:
        streamed = backend(opened, Path(server.url), workers=workers)
        assert streamed.classes == ["cat", "dog"]
        for mine, expected in ((streamed.train, local.train), (streamed.val, local.val)):
            assert_same(of(mine), of(expected))
        parts = [path for path, wanted in server.requests if wanted]
        # Not one an image: neighbours among the 20 + 7 images, of batches of 4 and shards of 4, come together.
        assert 20 // 4 + 7 // 4 < len(parts) < 20 + 7
        assert len(server.connections) < 60


@pytest.mark.usefixtures("no_proxy")
def test_a_server_that_fails_now_and_then(opened: Opened, packed: Path) -> None:
    local = list(of(backend(opened, packed).val))
    with serving(packed) as server:
        server.failures = [503, 500]
        val = backend(opened, f"{server.url}/moved").val  # type: ignore[arg-type]
        for failures in ([429, 503, 500], [502]):
            server.failures = list(failures)
            assert_same(of(val), local)
            assert not server.failures


@pytest.mark.usefixtures("no_proxy")
def test_a_urls_query_goes_with_every_request_and_into_no_message(opened: Opened, packed: Path) -> None:
    with serving(packed) as server:
        data = backend(opened, Path(f"{server.url}/?sig=secret%2B"))
        next(iter(of(data.val)))
        assert all(path.endswith("?sig=secret%2B") for path, _ in server.requests)
        with pytest.raises(UserError, match="404") as raised:
            backend(opened, Path(f"{server.url}/nowhere?sig=secret"))
        assert "secret" not in str(raised.value)


@pytest.mark.usefixtures("no_proxy")
@pytest.mark.parametrize("workers", [0, 1])
def test_what_can_go_wrong_with_a_server(opened: Opened, packed: Path, workers: int) -> None:
    def read(server: Server) -> None:
        list(of(backend(opened, Path(server.url), workers=workers, on_bad_image="skip").val))

    with serving(packed, ranges=False) as server, pytest.raises(UserError, match="no range requests"):
        read(server)
    with serving(packed) as server:
        data = backend(opened, Path(server.url), workers=workers, on_bad_image="skip")
        server.failures = [503] * 1000
        # not an image's fault: nothing is left out
        with pytest.raises(UserError, match="503 Service Unavailable") as raised:
            list(of(data.val))
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"http://127.0.0.1:1/val/index.json"):
        backend(opened, Path("http://127.0.0.1:1"), splits=("val",))


def test_whatever_fsspec_reaches(opened: Opened, packed: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for file in packed.rglob("*.*"):
        memory.pipe(f"/set/{file.relative_to(packed)}", file.read_bytes())
    streamed = backend(opened, "memory://set", workers=1)  # type: ignore[arg-type]
    assert_same(of(streamed.train), of(backend(opened, packed).train))
    with pytest.raises(UserError, match="nosuchthing"):
        backend(opened, "nosuchthing://set")  # type: ignore[arg-type]


def test_a_drive_is_no_url() -> None:
    assert isinstance(open_files("C:/images"), LocalFiles)
    assert isinstance(open_files(Path("a/b"), "train"), LocalFiles)


def test_the_models_classes_order_the_targets(opened: Opened, packed: Path) -> None:
    data = backend(opened, packed, classes=["dog", "owl", "cat"], splits=("val",))
    assert torch.cat([b.targets for b in of(data.val)]).tolist() == [2, 2, 2, 2, 0, 0, 0]
    with pytest.raises(UserError, match="no class dog"):
        backend(opened, packed, classes=["cat", "owl"], splits=("val",))


def test_classes_are_found_without_opening_images(folder: Path, packed: Path) -> None:
    for name, path in {"packed": packed, "pytorch": folder}.items():
        assert find_classes(Recipe().replace({"data_backend": name}), path) == ["cat", "dog"]
    synthetic = Recipe().replace({"data_backend": "synthetic", "num_classes": 3})
    assert find_classes(synthetic, Path()) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        (b"{", "is no index"),
        (b"[]", "is no index"),
        (b'{"format": "x"}', "is no index"),
    ],
)
def test_an_index_that_is_none(opened: Opened, tmp_path: Path, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "train").mkdir()
        (tmp_path / "train" / "index.json").write_bytes(content)
    with pytest.raises(UserError, match=complaint) as raised:
        backend(opened, tmp_path)
    assert str(tmp_path / "train" / "index.json") in str(raised.value)


def copied(packed: Path, to: Path) -> Path:
    for file in packed.rglob("*.*"):
        (to / file.relative_to(packed)).parent.mkdir(parents=True, exist_ok=True)
        (to / file.relative_to(packed)).write_bytes(file.read_bytes())
    return to


def test_a_later_version_is_refused(opened: Opened, packed: Path, tmp_path: Path) -> None:
    index = copied(packed, tmp_path) / "train" / "index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "version": 2}))
    with pytest.raises(UserError, match="version 2"):
        backend(opened, tmp_path)


def test_a_shard_that_was_copied_in_part(opened: Opened, packed: Path, tmp_path: Path) -> None:
    shard = copied(packed, tmp_path) / "val" / "000001.tar"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(UserError, match=str(shard)):
        backend(opened, tmp_path)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_jpeg_is_named_or_left_out(
    opened: Opened, packs: dict[str, Path], tmp_path: Path, workers: int
) -> None:
    shard = copied(packs["jpeg"], tmp_path) / "val" / "000000.tar"
    data = bytearray(shard.read_bytes())
    data[512 : 512 + 100] = bytes(100)
    shard.write_bytes(data)
    with pytest.raises(UserError, match=f"^{shard}: image 0: can't be decoded"):
        list(of(backend(opened, tmp_path, workers=workers).val))
    skipping = of(backend(opened, tmp_path, workers=workers, on_bad_image="skip").val)
    assert [len(b.targets) for b in skipping] == [3, 3]
    assert list(skipping.bad_images) == [f"{shard}: image 0"]


def test_enlarging_is_told(opened: Opened, packed: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend(opened, packed, size=32)
    assert not caplog.records
    backend(opened, packed, size=64, splits=("val",))
    assert "40 px, which are enlarged to 64 px" in caplog.text


def test_the_index_is_a_few_bytes_an_image_also_for_a_worker_that_gets_a_copy(tmp_path: Path) -> None:
    place = tmp_path / "in" / "train" / "a"
    place.mkdir(parents=True)
    photograph(8, 8).save(place / "0.png")
    for n in range(1, 1500):
        (place / f"{n}.png").symlink_to(place / "0.png")
    pack(tmp_path / "in", tmp_path / "out", PackSettings(32), workers=0)
    images = PackedImages.open(open_files(tmp_path / "out", "train"))
    [next(iter(images.read([n])))() for n in range(3)]  # with files mapped
    data = pickle.dumps(images)
    assert len(data) / len(images) < 45
    assert pickle.loads(data).targets.tolist() == [0] * 1500


def test_a_raw_image_is_cropped_as_an_encoded_one(tmp_path: Path) -> None:
    photograph(30, 40).save(tmp_path / "a.png")
    raw, encoded = RawImage(np.asarray(photograph(30, 40))), EncodedImage(tmp_path / "a.png")
    assert (raw.height, raw.width) == (encoded.height, encoded.width)
    np.testing.assert_array_equal(raw.decode(), encoded.decode())
    region = Region(3, 5, 20, 30)
    np.testing.assert_array_equal(raw.crop(region), encoded.crop(region))
    assert raw.crop(region).flags.writeable
