"""Artefacts: verified before they are parsed, refused with a sentence that says what to do, explained exactly."""

from __future__ import annotations

import math
import shutil
from hashlib import sha256

import msgspec
import numpy as np
import onnxruntime
import pytest
from support.checks import EXTREMES, plausible

from fraud_service.domain.features import NAMES
from fraud_service.domain.features import VERSION as FEATURES_VERSION
from fraud_service.errors import ModelError
from fraud_service.models import artefact
from fraud_service.models.artefact import CARD, MANIFEST, MODEL, TREES
from fraud_service.models.pretrained import LARGEST_INPUT, Pretrained
from fraud_service.models.pretrained import logit as share_logit
from fraud_service.models.trees import ENCODING_DEPTH, ENCODING_TREES

ROWS = [*plausible(1, 200), *EXTREMES]


@pytest.fixture(scope="module")
def shipped():
    return Pretrained.load(artefact.shipped())


@pytest.fixture
def folder(tmp_path):
    """Copy the shipped artefact."""
    return shutil.copytree(artefact.shipped(), tmp_path / "model")


@pytest.fixture
def nothing_is_parsed(monkeypatch):
    """Fail the test when bytes reach ONNX Runtime."""

    def parse(*_, **__):
        pytest.fail("the model reached ONNX Runtime")

    monkeypatch.setattr(onnxruntime, "InferenceSession", parse)


def change_manifest(folder, **changes):
    path = folder / MANIFEST
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | changes))


def alter(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def logits(model, rows):
    return [encoded.logit for encoded in model.encode(rows)]


def complaint(folder):
    with pytest.raises(ModelError) as caught:
        Pretrained.load(folder)
    return str(caught.value)


def test_the_shipped_artefact_loads_and_names_its_version(shipped):
    assert shipped.version == shipped.manifest.version
    assert shipped.version.startswith("forest-")
    assert shipped.prior == shipped.manifest.prior < -2
    assert (artefact.shipped() / CARD).read_text(encoding="utf-8").startswith(f"# Model {shipped.version}\n")


def test_an_untouched_copy_loads_and_scores_the_same(folder, shipped):
    assert [*Pretrained.load(folder).encode(ROWS)] == [*shipped.encode(ROWS)]


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
def test_a_file_of_another_artefact_is_refused(folder, name):
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
    assert "FRAUD_MODEL" in said


def test_a_folder_that_does_not_exist_says_how_to_get_a_model(tmp_path):
    assert "run `fraud-service train` or set FRAUD_MODEL" in complaint(tmp_path / "nowhere")


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
    assert complaint(folder) == f"{folder} has format 1, this version reads 2: train the model again"


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


@pytest.mark.parametrize("scale", [0.0, -1.0])
@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_manifest_with_a_scale_that_cannot_be_divided_by_is_refused(folder, scale):
    change_manifest(folder, scale=[scale, *([1.0] * (len(NAMES) - 1))])
    assert "does not standardise every feature" in complaint(folder)


def test_bytes_that_are_no_model_are_refused_although_their_digest_is_right(folder):
    nonsense = b"\x08\x0a\x12\x04nonsense"
    (folder / MODEL).write_bytes(nonsense)
    digests = msgspec.json.decode((folder / MANIFEST).read_bytes())["sha256"]
    change_manifest(folder, sha256=digests | {MODEL: sha256(nonsense).hexdigest()})
    assert "ONNX Runtime cannot load model forest-" in complaint(folder)


@pytest.mark.parametrize("nonsense", [b"{", b'{"base": 0}', b'{"base": "\xff"}'])
def test_trees_that_cannot_be_read_are_refused_although_their_digest_is_right(folder, nonsense):
    (folder / TREES).write_bytes(nonsense)
    digests = msgspec.json.decode((folder / MANIFEST).read_bytes())["sha256"]
    change_manifest(folder, sha256=digests | {TREES: sha256(nonsense).hexdigest()})
    assert f"{folder / TREES}" in complaint(folder)


@pytest.mark.parametrize(
    ("column", "value"), [("left", 0), ("left", 10**6), ("right", 0), ("feature", len(NAMES)), ("feature", -1)]
)
def test_trees_that_nobody_could_walk_through_are_refused(column, value):
    whole = artefact.read(artefact.shipped())
    inner = next(number for number in range(1, len(whole.trees.left)) if whole.trees.left[number] >= 0)
    values = [value if number == inner else known for number, known in enumerate(getattr(whole.trees, column))]
    broken = msgspec.structs.replace(whole, trees=msgspec.structs.replace(whole.trees, **{column: values}))
    with pytest.raises(ModelError, match=whole.manifest.version):
        Pretrained(broken)


def test_contributions_sum_to_the_logit(shipped):
    for row, logit in zip(ROWS, logits(shipped, ROWS), strict=True):
        base, summands = shipped.contributions(row)
        assert len(summands) == len(NAMES)
        assert math.fsum([base, *summands]) == pytest.approx(logit, abs=1e-9, rel=0)


def test_the_base_of_the_contributions_is_the_same_for_every_row(shipped):
    assert len({shipped.contributions(row)[0] for row in ROWS}) == 1


def test_features_that_no_tree_asks_for_contribute_nothing(shipped):
    trees = artefact.read(artefact.shipped()).trees
    asked = {feature for feature, left in zip(trees.feature, trees.left, strict=True) if left >= 0}
    for row in ROWS[:50]:
        summands = shipped.contributions(row)[1]
        assert all(summands[feature] == 0.0 for feature in range(len(NAMES)) if feature not in asked)


def test_walking_the_trees_ends_in_the_leaves_that_onnx_adds_up(shipped):
    trees = artefact.read(artefact.shipped()).trees
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
    trees = artefact.read(artefact.shipped()).trees
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
            assert given == min(max((math.asinh(value) - centre) / scale, -LARGEST_INPUT), LARGEST_INPUT)


def test_the_leaves_of_the_online_model_are_the_upper_levels_of_the_forest(shipped):
    trees, known = artefact.read(artefact.shipped()).trees, shipped.manifest.leaves
    assert len(shipped.untaught_online_model().leaf_weights) == known
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
            assert shipped.asked[leaf] == way
            assert reached.setdefault(leaf, node) == node
    assert len(set(reached.values())) == len(reached) > 3 * ENCODING_TREES
