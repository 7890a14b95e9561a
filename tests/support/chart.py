"""Render the chart with Helm, and validate the result against the schemas of Kubernetes and of the operators."""

from __future__ import annotations

import copy
import functools
import re
from pathlib import Path
from typing import Any

import yaml
from cloudcoil.models.keda import v1alpha1 as keda
from cloudcoil.models.prometheus_operator import v1 as prometheus
from helm_python import Chart
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

CHART = Path(__file__).resolve().parent.parent.parent / "helm" / "fraud-service"
CI = sorted((CHART / "ci").glob("*-values.yaml"))
VERSIONS = ("1.27", "1.31", "1.37")  # the oldest that Chart.yaml allows, and the newest known
CUSTOM = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): prometheus.ServiceMonitor,
    ("monitoring.coreos.com/v1", "PrometheusRule"): prometheus.PrometheusRule,
    ("keda.sh/v1alpha1", "ScaledObject"): keda.ScaledObject,
    ("keda.sh/v1alpha1", "TriggerAuthentication"): keda.TriggerAuthentication,
}

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's takes a tenth of the time

Manifest = dict[str, Any]

# Values without a default, which each installation must set.
REQUIRED: Manifest = {
    "signing": {"allowUnsigned": True},
    "networkPolicy": {"brokers": [{"podSelector": {"matchLabels": {"strimzi.io/cluster": "kafka"}}}]},
}


@functools.cache
def loaded(folder: Path = CHART) -> Chart:
    return Chart.load(folder)


def texts(values: Manifest | None = None, folder: Path = CHART, **release: Any) -> dict[str, str]:
    """Return Helm's output by template, after the same check of the values as in `helm install`."""
    values = merged(REQUIRED, values or {})
    loaded(folder).validate_schema(values)
    return loaded(folder).render(values, **{"name": "rel", "namespace": "payments", **release})


def merged(values: Manifest, more: Manifest) -> Manifest:
    """Merge values over other values, as Helm does with several files."""
    deeper = {
        name: merged(values[name], more[name])
        for name in values.keys() & more.keys()
        if isinstance(values[name], dict) and isinstance(more[name], dict)
    }
    return {**values, **more, **deeper}


def render(values: Manifest | None = None, folder: Path = CHART, **release: Any) -> list[Manifest]:
    """Return the manifests, in no particular order."""
    rendered = texts(values, folder, **release)
    documents = [text for name, text in rendered.items() if not name.endswith(".txt")]
    return [manifest for text in documents for manifest in yaml.load_all(text, LOADER) if manifest]


def ci(path: Path) -> Manifest:
    return yaml.safe_load(path.read_text())


def named(manifests: list[Manifest], kind: str, ending: str = "") -> Manifest:
    """Return the only manifest of a kind whose name has this ending."""
    (found,) = [one for one in manifests if one["kind"] == kind and one["metadata"]["name"].endswith(ending)]
    return found


def kinds(manifests: list[Manifest]) -> set[str]:
    return {manifest["kind"] for manifest in manifests}


PODS_IN = {
    "Pod": (),
    "StatefulSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


def inside(manifest: Manifest, path: tuple[str, ...]) -> Manifest:
    return functools.reduce(lambda place, name: place[name], path, manifest)


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return every pod template, with its metadata, by component."""
    found = [inside(one, PODS_IN[one["kind"]]) for one in manifests if one["kind"] in PODS_IN]
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod for pod in found}


def container(pod: Manifest) -> Manifest:
    """Return the service's container. Those that values add come after it."""
    first: Manifest = pod["spec"]["containers"][0]
    return first


def secrets(pod: Manifest) -> dict[str, list[Manifest]]:
    """Return the sources of each volume that has Secrets: their name as `name`, and their items."""
    found = {}
    for volume in pod["spec"]["volumes"]:
        if "secret" in volume:
            found[volume["name"]] = [volume["secret"] | {"name": volume["secret"]["secretName"]}]
        if "projected" in volume:
            found[volume["name"]] = [source["secret"] for source in volume["projected"]["sources"]]
    return found


def environment(manifests: list[Manifest], component: str) -> dict[str, str]:
    """Return a container's variables as the kubelet sets them: in order, with `$(NAME)` replaced once."""
    mine = container(pods(manifests)[component])
    seen: dict[str, str] = {}
    for source in mine["envFrom"]:
        (data,) = [
            one["data"]
            for one in manifests
            if one["kind"] == "ConfigMap" and one["metadata"]["name"] == source["configMapRef"]["name"]
        ]
        seen |= data
    for entry in mine["env"]:
        origin = entry.get("valueFrom", {})
        if "fieldRef" in origin:
            seen[entry["name"]] = f"rel-fraud-service-{component}-0"
        else:
            seen[entry["name"]] = _expanded(entry["value"], seen)
    return seen


def _expanded(text: str, seen: dict[str, str]) -> str:
    def replaced(match: re.Match[str]) -> str:
        return match[0][1:] if match[0].startswith("$$") else seen.get(match[1], match[0])

    return re.sub(r"\$\$\(|\$\(([A-Za-z_][A-Za-z0-9_]*)\)", replaced, text)


@functools.cache
def _validator(version: str, api: str, kind: str) -> Draft202012Validator:
    folder = f"kubernetes-json-schema/v{version}.0-local-strict"
    name = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api)
    schema = schema_contents(f"{folder}/{kind.lower()}-{name}.json", version)
    return Draft202012Validator(schema, registry=Resource.from_contents(_definitions(folder)) @ Registry())


@functools.cache
def _definitions(folder: str) -> Manifest:
    return schema_contents(f"{folder}/_definitions.json", "")


def faults(manifest: Manifest) -> list[str]:
    """Return the faults for which the API server or an operator would reject the manifest."""
    api, kind = manifest["apiVersion"], manifest["kind"]
    if (api, kind) in CUSTOM:
        return _custom_faults(manifest, CUSTOM[api, kind])
    return [
        f"{version} {kind} {'.'.join(map(str, fault.absolute_path))}: {fault.message}"
        for version in VERSIONS
        for fault in _validator(version, api, kind).iter_errors(manifest)
    ]


def _custom_faults(manifest: Manifest, model: Any) -> list[str]:
    """Compare with the model of the operator's definition, which drops unknown fields."""
    try:
        known = model.model_validate(copy.deepcopy(manifest)).model_dump(by_alias=True, exclude_unset=True, mode="json")
    except ValueError as error:
        return [str(error)]
    return [] if known == manifest else [f"{manifest['kind']}: the definition keeps only {known} of {manifest}"]
