"""Weights by name or URL, from a server on this machine: the caches, hashes, cuts, wrong names, and no network."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from loopback import COMMIT, serving
from safetensors.torch import save

import backbone
from backbone.common.errors import WeightsError
from backbone.weights import open_weights, sources, zoos
from backbone.weights.sources import resolve

NETWORK = "resnet18"


def content_of(seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return backbone.create(NETWORK, num_classes=3).state_dict()


def as_torch(tensors: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return content_of()


@pytest.fixture(scope="module")
def content(tensors) -> bytes:
    return as_torch(tensors)


@pytest.fixture
def server():
    with serving() as served:
        yield served


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch) -> Path:
    """Own caches of torch.hub, iopath and huggingface_hub."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "iopath"))
    monkeypatch.setattr(sources, "_found", {})
    return tmp_path


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def refused(source: str) -> str:
    with pytest.raises(WeightsError) as caught:
        resolve(source)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(source)
    return str(caught.value)


def test_a_url_is_downloaded_once_and_loads_as_the_file(server, tensors, content, caches):
    url = server.add("/zoo/net.pth", content)
    net = backbone.create(NETWORK, weights=url, num_classes=3)
    assert all(torch.equal(value, tensors[name]) for name, value in net.state_dict().items())
    asked = len(server.asked)
    sources._found.clear()
    assert open_weights(url).source == url
    assert len(server.asked) == asked
    assert resolve(f"{url}?signature={'0' * 300}").read_bytes() == content
    place = resolve(Path(url))
    assert place.read_bytes() == content and place.is_relative_to(caches / "torch" / "hub" / "checkpoints")


def test_files_of_one_name_in_two_folders_stay_apart(server):
    urls = [server.add(f"/{folder}/model.pth", as_torch(content_of(seed))) for seed, folder in enumerate("ab")]
    assert [resolve(url).read_bytes() for url in urls] == [server.files["/a/model.pth"], server.files["/b/model.pth"]]


@pytest.mark.parametrize("digits", [8, 64])
def test_the_hash_behind_a_url_is_checked(server, content, caches, digits):
    url = server.add("/net.pth", content)
    digest = hashlib.sha256(content).hexdigest()
    wrong = f"{url}#sha256={'0' * digits}"
    assert "not kept" in refused(wrong) and digest in refused(wrong)
    assert files_in(caches) == []
    place = resolve(f"{url}#sha256={digest[:digits].upper()}")
    assert place.read_bytes() == content
    # One that was put there by hand is checked too, and left to its owner.
    place.write_bytes(b"other")
    assert "remove it" in refused(f"{url}#sha256={'1' * digits}")
    assert place.read_bytes() == b"other"


def test_a_download_that_is_cut_off_leaves_nothing_and_can_be_tried_again(server, content, caches):
    url = server.add("/net.pth", content)
    server.cuts["/net.pth"] = 10
    message = refused(url)
    assert "cut off" in message and f"{len(content):,} bytes" in message
    place = Path(message.rpartition("put the file at ")[2])
    assert files_in(caches) == []
    server.cuts.clear()
    assert resolve(url) == place and place.read_bytes() == content


def test_a_file_put_by_hand_needs_no_network(content):
    url = "http://127.0.0.1:9/net.pth"
    message = refused(url)
    assert "cannot be downloaded (" in message
    place = Path(message.rpartition("put the file at ")[2])
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    assert resolve(url).read_bytes() == content


def test_a_path_that_exists_wins(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    for name in ("timm:resnet50.a1_in1k", "resnet50", "hf:x"):
        Path(name).write_bytes(content)
        assert resolve(name) == Path(name) and not sources.is_name(name)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("torchvision:resnet51", "did you mean 'resnet50'?"),
        ("torchvision:resnet50:IMAGENET1K_V3", "did you mean 'IMAGENET1K_V2'?"),
        ("torchvison:resnet50", "did you mean 'torchvision'?"),
        ("resnet50", "did you mean 'torchvision:resnet50'?"),
        ("s3://bucket/net.pth", "no source of weights is called 's3'"),
        ("timm:resnet50.a1_in1", "did you mean 'resnet50.a1_in1k'?"),
        ("timm:resnet50.nonsense", "timm has no pretrained"),
        ("hf:owner", "write hf:OWNER/REPOSITORY"),
        ("http://example.org/net.pth", "write https, or add #sha256="),
        ("https://example.org/", "not the URL of a file"),
        # The name in the cache is made of the host and the path.
        *((url, "not the URL of a file") for url in ("https://h/a/..", "https://../net.pth", "https://h/%00net.pth")),
        *((url, "not a URL") for url in ("https://[h/net.pth", "https://h:port/net.pth", "https://h:99999/net.pth")),
        ("detectron2://../../net.pkl", "without '..'"),
        ("https://example.org/net.pth#md5=123", "#sha256="),
        ("detectron2:COCO-Detection/faster_rcnn_R_50_FPN_4x", "did you mean 'COCO-Detection/faster_rcnn_R_50_FPN_3x'?"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest(source, says):
    if source.startswith("timm"):
        pytest.importorskip("timm")
    if source.startswith("detectron2"):
        pytest.importorskip("detectron2")
    assert says in refused(source)


def test_torchvision_names_give_its_url_hash_and_cache(server, content, caches, monkeypatch):
    from torchvision.models import ResNet50_Weights

    assert zoos.torchvision_weights("", "resnet50", "") is ResNet50_Weights.DEFAULT
    assert zoos.torchvision_weights("", "resnet50", "IMAGENET1K_V1") is ResNet50_Weights.IMAGENET1K_V1
    for digits, sound in ((hashlib.sha256(content).hexdigest()[:8], True), ("0" * 8, False)):
        entry = SimpleNamespace(url=server.add(f"/models/resnet18-{digits}.pth", content))
        monkeypatch.setattr(zoos, "torchvision_weights", lambda *_, entry=entry: entry)
        sources._found.clear()
        if sound:
            # Where torch.hub.load_state_dict_from_url, and so torchvision itself, finds it.
            path = caches / "torch" / "hub" / "checkpoints" / f"resnet18-{digits}.pth"
            assert resolve("torchvision:resnet18") == path
            asked = len(server.asked)
            torch.hub.load_state_dict_from_url(entry.url, check_hash=True)
            assert len(server.asked) == asked
        else:
            assert "not kept" in refused("torchvision:resnet18")


def test_detectron2_names_lie_where_its_path_manager_looks(server, caches, monkeypatch):
    pytest.importorskip("iopath")
    monkeypatch.setattr(zoos, "DETECTRON2_SERVER", f"{server.base}/detectron2/")
    monkeypatch.setattr(zoos, "detectron2_table", lambda: {"COCO-Detection/x": "COCO-Detection/x/1/model.pkl"})
    for source, path in (
        ("detectron2://ImageNetPretrained/MSRA/R-50.pkl", "ImageNetPretrained/MSRA/R-50.pkl"),
        ("detectron2:COCO-Detection/x", "COCO-Detection/x/1/model.pkl"),
        (Path("detectron2://a/b.pkl"), "a/b.pkl"),
    ):
        url = server.add(f"/detectron2/{path}", b"content of " + path.encode())
        server.cuts[f"/detectron2/{path}"] = 1
        with pytest.raises(WeightsError, match="cut off"):
            resolve(source)
        assert [name for name in files_in(caches) if not name.endswith(".lock")] == []
        found = resolve(source)
        assert (
            found == caches / "iopath" / "detectron2" / path
            and found.read_bytes() == server.files[f"/detectron2/{path}"]
        )
        from iopath.common.file_io import HTTPURLHandler, PathManager

        manager = PathManager()
        manager.register_handler(HTTPURLHandler())
        asked = len(server.asked)
        assert manager.get_local_path(url) == str(found) and len(server.asked) == asked
        found.unlink()
    assert "no such file" in refused("detectron2://ImageNetPretrained/MSRA/R-51.pkl")


def test_detectron2_tables_are_its_own():
    pytest.importorskip("detectron2")
    import detectron2

    source = Path(detectron2.__file__).parent.joinpath("model_zoo", "model_zoo.py").read_text(encoding="utf-8")
    scope: dict = {}
    exec(
        source[source.index("class _ModelZooUrls") : source.index("def get_checkpoint_url")], {"Optional": None}, scope
    )
    theirs = scope["_ModelZooUrls"]
    assert len(zoos.detectron2_table()) == len(theirs.CONFIG_PATH_TO_URL_SUFFIX) > 50
    assert zoos.DETECTRON2_SERVER == theirs.S3_PREFIX
    for name in zoos.detectron2_table():
        assert zoos.detectron2_url("", name) == theirs.S3_PREFIX + f"{name}/{theirs.CONFIG_PATH_TO_URL_SUFFIX[name]}"
    assert "detectron2://ImageNetPretrained/MSRA/R-101.pkl" in zoos.detectron2_files()


@pytest.fixture
def hub(server, caches, monkeypatch):
    """The server as huggingface_hub's hub."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "ENDPOINT", server.base)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.base + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(caches / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return server


def test_the_hub_gives_repositories_files_and_revisions(hub, tensors, caches):
    hub.add("/owner/net/resolve/main/model.safetensors", save(tensors))
    hub.add("/owner/net/resolve/v2/weights/last.safetensors", save(content_of(2)))
    hub.add("/owner/old/resolve/main/pytorch_model.bin", as_torch(tensors))
    place = resolve("hf:owner/net")
    assert place == caches / "hf" / "models--owner--net" / "snapshots" / COMMIT / "model.safetensors"
    assert torch.equal(open_weights("hf:owner/net").tensors["conv1.weight"], tensors["conv1.weight"])
    other = open_weights("hf:owner/net/weights/last.safetensors@v2").tensors
    assert torch.equal(other["conv1.weight"], content_of(2)["conv1.weight"])
    assert resolve("hf:owner/old").name == "pytorch_model.bin"
    assert "no revision 'v3'" in refused("hf:owner/net@v3")
    assert "no repository 'owner/nothing'" in refused("hf:owner/nothing")
    tree = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in ("README.md", "weights/first.pth")]
    hub.add("/api/models/owner/net/tree/main", json.dumps(tree).encode())
    assert refused("hf:owner/net/weights/frist.pth").endswith("did you mean 'weights/first.pth'?")
    hub.add("/owner/two/resolve/main/README.md", b"")
    hub.add("/api/models/owner/two/tree/main", hub.files["/api/models/owner/net/tree/main"])
    assert refused("hf:owner/two").endswith("name one of its files: weights/first.pth")


def test_timm_names_come_from_the_hub(hub, tensors):
    pytest.importorskip("timm")
    hub.add("/timm/resnet18.a1_in1k/resolve/main/model.safetensors", save(tensors))
    assert torch.equal(open_weights("timm:resnet18.a1_in1k").tensors["fc.weight"], tensors["fc.weight"])
    # Without a tag: timm's own default.
    assert resolve("timm:resnet18") == resolve("timm:resnet18.a1_in1k")


def test_the_hub_goes_on_after_a_cut(hub, tensors, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    path = "/owner/net/resolve/main/model.safetensors"
    hub.add(path, save(tensors))
    hub.cuts[path] = 1
    assert resolve("hf:owner/net").read_bytes() == hub.files[path]
    assert any(wanted and not wanted.startswith("bytes=0-") for wanted in hub.gets(path))


def test_offline_the_hub_gives_what_its_cache_has(hub, tensors, monkeypatch):
    from huggingface_hub import constants

    hub.add("/owner/net/resolve/main/model.safetensors", save(tensors))
    resolve("hf:owner/net")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    sources._found.clear()
    asked = len(hub.asked)
    assert resolve("hf:owner/net").is_file() and len(hub.asked) == asked
    message = refused("hf:owner/other")
    assert "HF_HUB_OFFLINE is set" in message
    place = Path(message.rpartition("put the file at ")[2])
    place.parent.mkdir(parents=True)
    place.write_bytes(save(tensors))
    assert resolve("hf:owner/other") == place


def test_openmmlab_names_come_from_its_packages(server, content, tmp_path, monkeypatch):
    for table in (zoos.openmmlab_table, zoos.openmmlab_models):
        table.cache_clear()
    monkeypatch.setattr(zoos, "folder_of", lambda package: None)
    assert "none is installed" in refused("openmmlab:detectron2/resnet50_caffe")
    for table in (zoos.openmmlab_table, zoos.openmmlab_models):
        table.cache_clear()
    # As mmengine and MMDetection bring them.
    url = server.add("/pretrain/resnet50_msra-5891d200.pth", content)
    hub, configs = tmp_path / "mmengine" / "hub", tmp_path / "mmdet" / ".mim" / "configs" / "faster_rcnn"
    hub.mkdir(parents=True), configs.mkdir(parents=True)
    (hub / "openmmlab.json").write_text(json.dumps({"detectron2/resnet50_caffe": url}))
    trained = server.add("/mmdetection/faster.pth", content)
    (configs / "metafile.yml").write_text(f"Models:\n  - Name: faster-rcnn_r50_fpn_1x_coco\n    Weights: {trained}\n")
    monkeypatch.setattr(zoos, "folder_of", lambda package: tmp_path / package)
    assert resolve("openmmlab:detectron2/resnet50_caffe").read_bytes() == content
    assert resolve("open-mmlab://detectron2/resnet50_caffe").read_bytes() == content
    assert resolve("openmmlab:faster-rcnn_r50_fpn_1x_coco").read_bytes() == content
    assert "did you mean 'detectron2/resnet50_caffe'?" in refused("openmmlab:detectron2/resnet50_cafe")
    for table in (zoos.openmmlab_table, zoos.openmmlab_models):
        table.cache_clear()


def test_a_name_tells_what_its_file_does_not(monkeypatch, tmp_path):
    from torchvision.models import VGG16_Weights

    net = backbone.create("resnet50", num_classes=1000)
    file = tmp_path / "net.pth"
    file.write_bytes(as_torch(net.state_dict()))
    assert (
        open_weights(file).weight_metadata.preprocessing.assumed
        and open_weights(file).weight_metadata.stride_in_1x1 is None
    )
    for source in ("torchvision:resnet50", "torchvision:resnet50:IMAGENET1K_V1", "timm:resnet50.a1_in1k"):
        if source.startswith("timm"):
            pytest.importorskip("timm")
        monkeypatch.setattr(sources, "_found", {source: file})
        weight_metadata = open_weights(source).weight_metadata
        assert weight_metadata.stride_in_1x1 is False and not weight_metadata.preprocessing.assumed
        with pytest.raises(WeightsError, match="stride"):
            backbone.create("resnet50", weights=source, stride_in_1x1=True)
    # The authors' VGG-16 in torchvision has other numbers than its other networks.
    preset = VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    known = sources.metadata_by_name("torchvision:vgg16:IMAGENET1K_FEATURES", {}).preprocessing
    assert list(known.mean) == list(preset.mean) and list(known.std) == list(preset.std) and max(known.std) < 0.004


def test_convert_and_export_take_names(server, content, tmp_path):
    from backbone.exporting import open_network
    from backbone.weights import convert

    url = server.add("/net.pth", content)
    convert(url, tmp_path / "net.pkl", "detectron2")
    assert open_network(tmp_path / "net.pkl")[0].architecture == open_network(url)[0].architecture == NETWORK
