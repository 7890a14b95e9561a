"""Artifacts: verified before they are parsed, and rejected with an error that says what to do."""

from __future__ import annotations

import shutil
from hashlib import sha256

import msgspec
import onnxruntime
import pytest
from support.checks import EXTREMES, plausible
from support.small_trees import INCONSISTENT_TREES, two_trees

from fraud_service.domain.errors import ModelError
from fraud_service.domain.features import NAMES
from fraud_service.domain.features import VERSION as FEATURES_VERSION
from fraud_service.models import artifact
from fraud_service.models.artifact import MANIFEST, MODEL, MODEL_CARD, TREES
from fraud_service.models.onnx_forest import OnnxForest
from fraud_service.models.trees import MAX_NODES

pytestmark = pytest.mark.attack

ROWS = [*plausible(1, 200), *EXTREMES]


@pytest.fixture(scope="module")
def shipped():
    return OnnxForest.load(artifact.shipped_folder())


@pytest.fixture
def folder(tmp_path):
    """Copy the shipped artifact."""
    return shutil.copytree(artifact.shipped_folder(), tmp_path / "model")


@pytest.fixture
def nothing_is_parsed(monkeypatch):
    """Fail the test when bytes reach ONNX Runtime."""

    def parse(*_, **__):
        pytest.fail("the model reached ONNX Runtime")

    monkeypatch.setattr(onnxruntime, "InferenceSession", parse)


def change_manifest(folder, **changes):
    path = folder / MANIFEST
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | changes))


def replace(folder, name, data):
    """Put another file in its place, and its digest into the manifest."""
    (folder / name).write_bytes(data)
    digests = msgspec.json.decode((folder / MANIFEST).read_bytes())["sha256"]
    change_manifest(folder, sha256=digests | {name: sha256(data).hexdigest()})


def alter(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def error_of(folder):
    with pytest.raises(ModelError) as caught:
        OnnxForest.load(folder)
    return str(caught.value)


def test_the_shipped_artifact_loads_and_names_its_version(shipped):
    assert shipped.version == shipped.manifest.version
    assert shipped.version.startswith("forest-")
    assert shipped.prior == shipped.manifest.prior < -2
    assert (
        (artifact.shipped_folder() / MODEL_CARD).read_text(encoding="utf-8").startswith(f"# Model {shipped.version}\n")
    )


def test_an_untouched_copy_loads_and_scores_the_same(folder, shipped):
    assert [*OnnxForest.load(folder).encode(ROWS)] == [*shipped.encode(ROWS)]


@pytest.mark.parametrize("place", [0, 1000, -1])
@pytest.mark.parametrize("name", [MODEL, TREES])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_file_with_one_altered_bit_is_rejected_by_name_before_anything_is_parsed(folder, name, place):
    alter(folder / name, place)
    message = error_of(folder)
    assert f"{folder / name} has SHA-256" in message
    assert "restore it or train the model again" in message


@pytest.mark.parametrize("name", [MODEL, TREES])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_file_of_another_artifact_is_rejected(folder, name):
    (folder / name).write_bytes(b"\x08\x0a\x12\x04evil" if name == MODEL else b"[" * 100_000)
    assert f"{folder / name} has SHA-256" in error_of(folder)


@pytest.mark.parametrize("name", [MODEL, TREES])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_file_whose_digest_is_not_in_the_manifest_is_rejected(folder, name):
    digests = msgspec.json.decode((folder / MANIFEST).read_bytes())["sha256"]
    change_manifest(folder, sha256={other: digest for other, digest in digests.items() if other != name})
    assert f"{folder / name} has SHA-256" in error_of(folder)


@pytest.mark.parametrize("name", [MODEL, TREES])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    message = error_of(folder)
    assert f"{folder / name} cannot be read" in message
    assert "train the model again" in message


@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_folder_without_a_manifest_says_how_to_get_a_model(folder):
    (folder / MANIFEST).unlink()
    message = error_of(folder)
    assert f"no model at {folder}" in message
    assert "fraud-service train" in message
    assert "FRAUD_MODEL_DIR" in message


def test_a_folder_that_does_not_exist_says_how_to_get_a_model(tmp_path):
    assert "run `fraud-service train` or set FRAUD_MODEL_DIR" in error_of(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff\xfe", b'{"format": 1}', b'{"format": "one"}', b'{"version": "\xff"}'],
)
@pytest.mark.usefixtures("nothing_is_parsed")
def test_an_unreadable_manifest_is_rejected(folder, content):
    (folder / MANIFEST).write_bytes(content)
    assert f"{folder / MANIFEST} is not a manifest" in error_of(folder)


@pytest.mark.usefixtures("nothing_is_parsed")
def test_another_format_is_rejected(folder):
    change_manifest(folder, format=1)
    assert error_of(folder) == f"{folder} has format 1, but this version reads 2: train the model again"


@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_model_of_another_feature_contract_is_rejected(folder):
    change_manifest(folder, features_version=FEATURES_VERSION + 1)
    message = error_of(folder)
    assert f"trained on features version {FEATURES_VERSION + 1}" in message
    assert f"computes version {FEATURES_VERSION}" in message
    assert "train the model again" in message


@pytest.mark.usefixtures("nothing_is_parsed")
def test_the_error_of_a_model_with_other_features_names_them(folder):
    change_manifest(folder, features=["shoe_size", *NAMES[1:]])
    message = error_of(folder)
    assert "unknown here: ['shoe_size']" in message
    assert f"missing there: ['{NAMES[0]}']" in message


@pytest.mark.usefixtures("nothing_is_parsed")
def test_the_same_features_in_another_order_are_rejected(folder):
    change_manifest(folder, features=list(NAMES[::-1]))
    assert "train the model again" in error_of(folder)


@pytest.mark.parametrize("figures", ["centre", "scale"])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_manifest_that_does_not_standardise_every_feature_is_rejected(folder, figures):
    change_manifest(folder, **{figures: [1.0] * (len(NAMES) - 1)})
    assert "does not standardise every feature" in error_of(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"scale": [0.0, *([1.0] * (len(NAMES) - 1))]},
        {"scale": [-1.0, *([1.0] * (len(NAMES) - 1))]},
        {"centre": [1e300, *([0.0] * (len(NAMES) - 1))]},
        {"prior": 1e300},
        {"version": "x" * 65},
        {"version": "forest\n"},
        {"version": "forest-\u202e1"},
        {"version": ""},
        {"training": {"source": "x" * 70_000}},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_manifest_with_a_value_out_of_bounds_is_rejected(folder, changes):
    change_manifest(folder, **changes)
    assert f"{folder / MANIFEST}" in error_of(folder)


@pytest.mark.parametrize("leaves", [-1, 0, 1229, int(1e11), 10**30])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_manifest_with_a_wrong_number_of_leaves_is_rejected(folder, leaves):
    change_manifest(folder, leaves=leaves)
    assert f"says {leaves} leaves, but its trees have 1230" in error_of(folder)


@pytest.mark.usefixtures("nothing_is_parsed")
def test_bytes_that_are_not_a_model_are_rejected_even_with_a_correct_digest(folder):
    replace(folder, MODEL, b"\x08\x0a\x12\x04nonsense")
    assert "is not the graph of its trees" in error_of(folder)


def as_onnx(change):
    """Return the shipped model after a change through the ONNX library."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string((artifact.shipped_folder() / MODEL).read_bytes())
    change(onnx, model)
    return model.SerializeToString(deterministic=True)


def unchanged(onnx, model):
    onnx.checker.check_model(model, full_check=True)


def external_data(onnx, model):
    (weights,) = [one for one in model.graph.node[0].attribute if one.name == "leaf_weights"]
    weights.t.external_data.add(key="location", value="/etc/passwd")
    weights.t.data_location = onnx.TensorProto.EXTERNAL
    weights.t.ClearField("double_data")


def loop(onnx, model):
    body = onnx.helper.make_graph([], "body", [], [])
    model.graph.node.append(onnx.helper.make_node("Loop", ["", ""], ["forever"], body=body))


def function(onnx, model):
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(onnx.helper.make_function("local", "f", ["x"], ["y"], [node], model.opset_import))


def metadata(onnx, model):
    onnx.helper.set_model_props(model, {"ort_config": "{}"})


def initializer(onnx, model):
    model.graph.initializer.append(onnx.helper.make_tensor("x", onnx.TensorProto.DOUBLE, [1], [0.0]))


def another_leaf(onnx, model):
    (weights,) = [one for one in model.graph.node[0].attribute if one.name == "leaf_weights"]
    weights.t.double_data[0] += 1e-6


def another_domain(onnx, model):
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))


def test_the_onnx_library_reads_our_graph_and_writes_the_same_bytes():
    assert as_onnx(unchanged) == (artifact.shipped_folder() / MODEL).read_bytes()


@pytest.mark.parametrize("change", [external_data, loop, function, metadata, initializer, another_leaf, another_domain])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_onnx_with_anything_besides_its_trees_never_reaches_the_runtime(folder, change):
    replace(folder, MODEL, as_onnx(change))
    assert "is not the graph of its trees" in error_of(folder)


@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_file_above_the_maximum_size_is_rejected_before_it_is_hashed(folder):
    with (folder / MODEL).open("r+b") as file:
        file.truncate(artifact.MAX_BYTES + 1)
    assert f"has more than {artifact.MAX_BYTES} bytes" in error_of(folder)


def test_a_message_above_the_maximum_size_is_rejected_before_it_is_decoded():
    with pytest.raises(ModelError, match="the maximum is"):
        artifact.unpack(bytes(artifact.MAX_BYTES + 1))


def test_a_message_with_many_unknown_fields_is_decoded_without_keeping_them():
    names = msgspec.msgpack.encode({f"x{number}": b"" for number in range(100_000)})
    with pytest.raises(ModelError, match="is not a manifest"):
        artifact.unpack(names)


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), OverflowError(), RuntimeError("by ONNX Runtime")])
def test_any_error_while_a_received_model_loads_is_a_model_error(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(ModelError):
        OnnxForest.from_message(artifact.pack(artifact.read(artifact.shipped_folder())))


@pytest.mark.parametrize("nonsense", [b"{", b'{"base": 0}', b'{"base": "\xff"}'])
def test_unreadable_trees_are_rejected_even_with_a_correct_digest(folder, nonsense):
    replace(folder, TREES, nonsense)
    assert f"{folder / TREES}" in error_of(folder)


@pytest.mark.usefixtures("nothing_is_parsed")
def test_the_error_of_inconsistent_trees_names_the_model_version(folder):
    replace(folder, TREES, msgspec.msgpack.encode(INCONSISTENT_TREES["share_above_one"]))
    message = error_of(folder)
    assert "has invalid trees: a value is not a fraud share" in message
    assert "forest-" in message


def test_too_many_nodes_are_rejected_before_they_are_decoded(folder):
    count = MAX_NODES + 1
    replace(folder, TREES, msgspec.msgpack.encode(two_trees(left=[-1] * count)))
    assert "must have at most 262144 elements" in error_of(folder)
