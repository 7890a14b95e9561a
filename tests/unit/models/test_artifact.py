"""Artifacts: verified before they are parsed, refused with a sentence that says what to do, explained exactly."""

from __future__ import annotations

import math
import shutil
from hashlib import sha256

import msgspec
import numpy as np
import onnxruntime
import pytest
from support.checks import EXTREMES, plausible

from fraud_service.domain.errors import ModelError
from fraud_service.domain.features import NAMES
from fraud_service.domain.features import VERSION as FEATURES_VERSION
from fraud_service.models import artifact
from fraud_service.models.artifact import CARD, MANIFEST, MODEL, TREES
from fraud_service.models.onnx_forest import WINSORIZE_SD, OnnxForest
from fraud_service.models.onnx_forest import logit as share_logit
from fraud_service.models.trees import (
    ENCODING_DEPTH,
    ENCODING_TREES,
    MAX_DEPTH,
    MAX_NODES,
    Trees,
    require_consistent,
)

pytestmark = pytest.mark.attack

ROWS = [*plausible(1, 200), *EXTREMES]


@pytest.fixture(scope="module")
def shipped():
    return OnnxForest.load(artifact.shipped())


@pytest.fixture
def folder(tmp_path):
    """Copy the shipped artifact."""
    return shutil.copytree(artifact.shipped(), tmp_path / "model")


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


def logits(model, rows):
    return [encoded.logit for encoded in model.encode(rows)]


def complaint(folder):
    with pytest.raises(ModelError) as caught:
        OnnxForest.load(folder)
    return str(caught.value)


def test_the_shipped_artifact_loads_and_names_its_version(shipped):
    assert shipped.version == shipped.manifest.version
    assert shipped.version.startswith("forest-")
    assert shipped.prior == shipped.manifest.prior < -2
    assert (artifact.shipped() / CARD).read_text(encoding="utf-8").startswith(f"# Model {shipped.version}\n")


def test_an_untouched_copy_loads_and_scores_the_same(folder, shipped):
    assert [*OnnxForest.load(folder).encode(ROWS)] == [*shipped.encode(ROWS)]


@pytest.mark.parametrize("place", [0, 1000, -1])
@pytest.mark.parametrize("name", [MODEL, TREES])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_file_with_one_altered_bit_is_refused_by_name_before_anything_is_parsed(folder, name, place):
    alter(folder / name, place)
    said = complaint(folder)
    assert f"{folder / name} has SHA-256" in said
    assert "restore it or train the model again" in said


@pytest.mark.parametrize("name", [MODEL, TREES])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_file_of_another_artifact_is_refused(folder, name):
    (folder / name).write_bytes(b"\x08\x0a\x12\x04evil" if name == MODEL else b"[" * 100_000)
    assert f"{folder / name} has SHA-256" in complaint(folder)


@pytest.mark.parametrize("name", [MODEL, TREES])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_file_whose_digest_the_manifest_does_not_name_is_refused(folder, name):
    digests = msgspec.json.decode((folder / MANIFEST).read_bytes())["sha256"]
    change_manifest(folder, sha256={other: digest for other, digest in digests.items() if other != name})
    assert f"{folder / name} has SHA-256" in complaint(folder)


@pytest.mark.parametrize("name", [MODEL, TREES])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    said = complaint(folder)
    assert f"{folder / name} cannot be read" in said
    assert "train the model again" in said


@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_folder_without_a_manifest_says_how_to_get_a_model(folder):
    (folder / MANIFEST).unlink()
    said = complaint(folder)
    assert f"no model at {folder}" in said
    assert "fraud-service train" in said
    assert "FRAUD_MODEL_DIR" in said


def test_a_folder_that_does_not_exist_says_how_to_get_a_model(tmp_path):
    assert "run `fraud-service train` or set FRAUD_MODEL_DIR" in complaint(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b"\xff\xfe", b'{"format": 1}', b'{"format": "one"}', b'{"version": "\xff"}'],
)
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_manifest_that_cannot_be_read_is_refused(folder, content):
    (folder / MANIFEST).write_bytes(content)
    assert f"{folder / MANIFEST} is not a manifest" in complaint(folder)


@pytest.mark.usefixtures("nothing_is_parsed")
def test_another_format_is_refused(folder):
    change_manifest(folder, format=1)
    assert complaint(folder) == f"{folder} has format 1, but this version reads 2: train the model again"


@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_model_of_another_feature_contract_is_refused(folder):
    change_manifest(folder, features_version=FEATURES_VERSION + 1)
    said = complaint(folder)
    assert f"trained on features version {FEATURES_VERSION + 1}" in said
    assert f"computes version {FEATURES_VERSION}" in said
    assert "train the model again" in said


@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_model_of_other_features_names_those_that_differ(folder):
    change_manifest(folder, features=["shoe_size", *NAMES[1:]])
    said = complaint(folder)
    assert "unknown here: ['shoe_size']" in said
    assert f"missing there: ['{NAMES[0]}']" in said


@pytest.mark.usefixtures("nothing_is_parsed")
def test_the_same_features_in_another_order_are_refused(folder):
    change_manifest(folder, features=list(NAMES[::-1]))
    assert "train the model again" in complaint(folder)


@pytest.mark.parametrize("figures", ["centre", "scale"])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_manifest_that_does_not_standardise_every_feature_is_refused(folder, figures):
    change_manifest(folder, **{figures: [1.0] * (len(NAMES) - 1)})
    assert "does not standardise every feature" in complaint(folder)


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
def test_a_manifest_beyond_its_bounds_is_refused(folder, changes):
    change_manifest(folder, **changes)
    assert f"{folder / MANIFEST}" in complaint(folder)


@pytest.mark.parametrize("leaves", [-1, 0, 1229, int(1e11), 10**30])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_manifest_that_counts_other_leaves_than_its_trees_have_is_refused(folder, leaves):
    change_manifest(folder, leaves=leaves)
    assert f"says {leaves} leaves, but its trees have 1230" in complaint(folder)


@pytest.mark.usefixtures("nothing_is_parsed")
def test_bytes_that_are_no_model_are_refused_although_their_digest_is_right(folder):
    replace(folder, MODEL, b"\x08\x0a\x12\x04nonsense")
    assert "is not the graph of its trees" in complaint(folder)


def as_onnx(change):
    """Return the shipped model after a change through the ONNX library."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string((artifact.shipped() / MODEL).read_bytes())
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


def test_the_onnx_library_reads_what_we_write_and_writes_the_same():
    assert as_onnx(unchanged) == (artifact.shipped() / MODEL).read_bytes()


@pytest.mark.parametrize("change", [external_data, loop, function, metadata, initializer, another_leaf, another_domain])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_onnx_that_holds_anything_but_its_trees_never_reaches_the_runtime(folder, change):
    replace(folder, MODEL, as_onnx(change))
    assert "is not the graph of its trees" in complaint(folder)


@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_file_larger_than_any_model_is_refused_before_it_is_hashed(folder):
    with (folder / MODEL).open("r+b") as file:
        file.truncate(artifact.MAX_BYTES + 1)
    assert f"has more than {artifact.MAX_BYTES} bytes" in complaint(folder)


def test_a_message_larger_than_any_model_is_refused_before_it_is_read():
    with pytest.raises(ModelError, match="the maximum is"):
        artifact.unpack(bytes(artifact.MAX_BYTES + 1))


def test_a_message_of_many_names_is_read_without_keeping_them():
    names = msgspec.msgpack.encode({f"x{number}": b"" for number in range(100_000)})
    with pytest.raises(ModelError, match="is not a manifest"):
        artifact.unpack(names)


@pytest.mark.parametrize("error", [MemoryError(), RecursionError(), OverflowError(), RuntimeError("by ONNX Runtime")])
def test_a_received_model_that_fails_to_load_for_any_reason_is_a_refused_model(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(onnxruntime, "InferenceSession", fail)
    with pytest.raises(ModelError):
        OnnxForest.from_message(artifact.pack(artifact.read(artifact.shipped())))


@pytest.mark.parametrize("nonsense", [b"{", b'{"base": 0}', b'{"base": "\xff"}'])
def test_trees_that_cannot_be_read_are_refused_although_their_digest_is_right(folder, nonsense):
    replace(folder, TREES, nonsense)
    assert f"{folder / TREES}" in complaint(folder)


def small(**columns):
    """Return two trees of a root and two leaves each, with some columns replaced."""
    known = {
        "roots": [0, 3],
        "feature": [0, 0, 0, 1, 0, 0],
        "threshold": [1.0, 0.0, 0.0, 2.0, 0.0, 0.0],
        "left": [1, -1, -1, 4, -1, -1],
        "right": [2, -1, -1, 5, -1, -1],
        "value": [0.1, 0.0, 0.5, 0.2, 0.1, 0.3],
    }
    return Trees(**known | columns)


def chain(levels):
    """Return a tree that goes down by one level a node."""
    count = 2 * levels + 1
    inner = [*range(0, count - 1, 2)]
    left, right = [-1] * count, [-1] * count
    for node in inner:
        left[node], right[node] = node + 1, node + 2
    return Trees([0], [0] * count, [0.0] * count, left, right, [0.0] * count)


def test_sound_trees_pass():
    require_consistent(small())
    require_consistent(chain(MAX_DEPTH))


UNSOUND = {
    "cycle": small(left=[0, -1, -1, 4, -1, -1]),
    "backwards": small(left=[1, -1, -1, 2, -1, -1]),
    "beyond_the_end": small(left=[10**12, -1, -1, 4, -1, -1]),
    "another_tree": small(right=[4, -1, -1, 5, -1, -1]),
    "one_child_twice": small(right=[1, -1, -1, 5, -1, -1]),
    "half_a_leaf": small(right=[2, 2, -1, 5, -1, -1]),
    "negative_child": small(left=[1, -7, -1, 4, -1, -1]),
    "feature_beyond": small(feature=[len(NAMES), 0, 0, 1, 0, 0]),
    "feature_negative": small(feature=[-1, 0, 0, 1, 0, 0]),
    "threshold_infinite": small(threshold=[math.inf, 0.0, 0.0, 2.0, 0.0, 0.0]),
    "threshold_not_a_number": small(threshold=[math.nan, 0.0, 0.0, 2.0, 0.0, 0.0]),
    "share_above_one": small(value=[0.1, 0.0, 0.6, 0.2, 0.1, 0.3]),
    "share_negative": small(value=[0.1, -0.1, 0.5, 0.2, 0.1, 0.3]),
    "share_not_a_number": small(value=[0.1, math.nan, 0.5, 0.2, 0.1, 0.3]),
    "columns_differ": small(value=[0.1]),
    "no_trees": small(roots=[]),
    "roots_unordered": small(roots=[3, 0]),
    "root_beyond": small(roots=[0, 6]),
    "root_missing": small(roots=[0]),
    "single_leaf": Trees([0], [0], [0.0], [-1], [-1], [0.0]),
    "too_deep": chain(MAX_DEPTH + 1),
}


@pytest.mark.parametrize("name", UNSOUND)
def test_trees_that_cannot_be_walked_are_unsound(name):
    with pytest.raises(ValueError, match=r"node|tree|threshold|value|column"):
        require_consistent(UNSOUND[name])


@pytest.mark.usefixtures("nothing_is_parsed")
def test_unsound_trees_are_refused_with_the_version_of_their_model(folder):
    replace(folder, TREES, msgspec.msgpack.encode(UNSOUND["share_above_one"]))
    said = complaint(folder)
    assert "has invalid trees: a value is not a fraud share" in said
    assert "forest-" in said


def test_more_nodes_than_a_pod_can_hold_are_refused_before_they_are_read(folder):
    count = MAX_NODES + 1
    replace(folder, TREES, msgspec.msgpack.encode(small(left=[-1] * count)))
    assert "length" in complaint(folder)


def test_contributions_sum_to_the_logit(shipped):
    for row, logit in zip(ROWS, logits(shipped, ROWS), strict=True):
        base, summands = shipped.contributions(row)
        assert len(summands) == len(NAMES)
        assert math.fsum([base, *summands]) == pytest.approx(logit, abs=1e-9, rel=0)


def test_the_base_of_the_contributions_is_the_same_for_every_row(shipped):
    assert len({shipped.contributions(row)[0] for row in ROWS}) == 1


def test_features_that_no_tree_asks_for_contribute_nothing(shipped):
    trees = artifact.read(artifact.shipped()).trees
    features_on_path = {feature for feature, left in zip(trees.feature, trees.left, strict=True) if left >= 0}
    for row in ROWS[:50]:
        summands = shipped.contributions(row)[1]
        assert all(summands[feature] == 0.0 for feature in range(len(NAMES)) if feature not in features_on_path)


def test_walking_the_trees_ends_in_the_leaves_that_onnx_adds_up(shipped):
    trees = artifact.read(artifact.shipped()).trees
    for row, logit in zip(ROWS, logits(shipped, ROWS), strict=True):
        values, total = np.array(row.vector(), dtype=np.float32).tolist(), 0.0
        for root in trees.roots:
            node = root
            while trees.left[node] >= 0:
                goes_left = values[trees.feature[node]] <= trees.threshold[node]
                node = (trees.left if goes_left else trees.right)[node]
            total += trees.value[node]
        assert share_logit(total) == logit


def test_a_value_exactly_at_a_threshold_goes_left_in_both(shipped):
    trees = artifact.read(artifact.shipped()).trees
    root = trees.roots[0]
    name, threshold = NAMES[trees.feature[root]], trees.threshold[root]
    at, above = (
        msgspec.structs.replace(EXTREMES[1], **{name: value})
        for value in (threshold, float(np.nextafter(np.float32(threshold), np.float32(np.inf))))
    )
    for row in (at, above):
        base, summands = shipped.contributions(row)
        assert math.fsum([base, *summands]) == pytest.approx(logits(shipped, [row])[0], abs=1e-9, rel=0)
    assert logits(shipped, [at]) != logits(shipped, [above])


def test_inputs_of_the_online_model_are_standardised_as_the_manifest_says(shipped):
    for row, found in zip(ROWS, shipped.encode(ROWS), strict=True):
        for value, centre, scale, given in zip(
            row.vector(), shipped.manifest.centre, shipped.manifest.scale, found.inputs, strict=True
        ):
            assert given == min(max((math.asinh(value) - centre) / scale, -WINSORIZE_SD), WINSORIZE_SD)


def test_the_leaves_of_the_online_model_are_the_upper_levels_of_the_forest(shipped):
    trees, known = artifact.read(artifact.shipped()).trees, shipped.manifest.leaves
    assert len(shipped.untrained_online_model().leaf_weights) == known
    reached = {}
    for row, found in zip(ROWS, shipped.encode(ROWS), strict=True):
        assert len(found.leaves) == ENCODING_TREES
        assert found.leaves == sorted(found.leaves)  # numbered tree by tree
        assert 0 <= found.leaves[0] <= found.leaves[-1] < known
        values = np.array(row.vector(), dtype=np.float32).tolist()
        for root, leaf in zip(trees.roots, found.leaves, strict=False):
            node, way = root, set()
            for _ in range(ENCODING_DEPTH):
                if trees.left[node] >= 0:
                    way.add(trees.feature[node])
                    left = values[trees.feature[node]] <= trees.threshold[node]
                    node = (trees.left if left else trees.right)[node]
            assert shipped.features_on_path[leaf] == way
            assert reached.setdefault(leaf, node) == node
    assert len(set(reached.values())) == len(reached) > 3 * ENCODING_TREES
