{{- define "fraud-service.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{- define "fraud-service.fullname" -}}
{{- $name := include "fraud-service.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels of selectors. They must never change, because Kubernetes forbids it. Takes a list: the root, and the component or "". */ -}}
{{- define "fraud-service.selector" -}}
app.kubernetes.io/name: {{ include "fraud-service.name" (index . 0) }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- /* Metadata of an object. Takes a dict: root and, if need be, component, name, labels, annotations. */ -}}
{{- define "fraud-service.metadata" -}}
{{- $component := .component | default "" -}}
{{- $standard := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- $selector := include "fraud-service.selector" (list .root $component) | fromYaml -}}
name: {{ .name | default (list (include "fraud-service.fullname" .root) $component | compact | join "-") | quote }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- mergeOverwrite dict (.root.Values.commonLabels | default dict) (.labels | default dict) $standard $selector | toYaml | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "fraud-service.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "fraud-service.fullname" .) "default" .Values.serviceAccount.enabled) -}}
{{- end -}}

{{- /* The image reference. Takes a list: the root, and a map with repository, tag and digest. */ -}}
{{- define "fraud-service.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- $registry := dig "imageRegistry" "" ($root.Values.global | default dict) | default $root.Values.image.registry -}}
{{- list $registry $image.repository | compact | join "/" -}}
{{- if $image.digest -}}
{{- printf "@%s" $image.digest -}}
{{- else -}}
{{- printf ":%s" ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* A value for all pods, with the component's own: maps entry by entry, and lists one after the other. Takes a list: the root, the component, and the name of the value. Returns JSON. */ -}}
{{- define "fraud-service.own" -}}
{{- $common := index (index . 0).Values (index . 2) -}}
{{- $own := index (index . 0).Values (index . 1) (index . 2) -}}
{{- if hasPrefix "extra" (index . 2) -}}
{{- concat ($common | default list) ($own | default list) | mustToJson -}}
{{- else -}}
{{- $merged := dict -}}
{{- range $map := list $common $own -}}
{{- range $name, $value := $map -}}
{{- if kindIs "invalid" $value }}{{ $_ := unset $merged $name }}{{ else }}{{ $_ := set $merged $name $value }}{{ end -}}
{{- end -}}
{{- end -}}
{{- mustToJson $merged -}}
{{- end -}}
{{- end -}}

{{- /* A setting or option as text. Numbers go through JSON, because the service rejects 1e+06 as integer. */ -}}
{{- define "fraud-service.text" -}}
{{- ternary . (toJson .) (kindIs "string" .) -}}
{{- end -}}

{{- /* Settings without secrets, equal in all pods. */ -}}
{{- define "fraud-service.settings" -}}
FRAUD_BOOTSTRAP_SERVERS: {{ .Values.kafka.bootstrapServers | quote }}
{{- if or .Values.scorer.enabled .Values.learner.enabled .Values.refit.enabled }}
{{- with .Values.signing }}
{{- if .secret }}
{{- $others := list $.Values.http.tlsSecret $.Values.kafka.tls.caSecret $.Values.kafka.tls.clientSecret $.Values.kafka.sasl.secret }}
{{- range $.Values.kafka.secretOptions }}{{ $others = append $others .secret }}{{ end }}
{{- if has .secret $others }}
{{- fail (printf "signing.secret: every entry of Secret %s would be a key that signs, but another value names it too; create a separate Secret" .secret) }}
{{- end }}
FRAUD_DEPLOYMENT: {{ .deployment | default (printf "%s/%s" $.Release.Namespace $.Release.Name) | quote }}
{{- else if .allowUnsigned }}
FRAUD_ALLOW_UNSIGNED: "true"
{{- else }}
{{- fail "signing.secret: name the Secret with the keys that sign models, snapshots and risk (kubectl create secret generic fraud-signing --from-literal=2026-01=$(openssl rand -hex 32)), or set signing.allowUnsigned=true to run without keys" }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.model.volume .Values.settings.FRAUD_MODEL_DIR }}
{{- fail "model.volume and settings.FRAUD_MODEL_DIR name two models: set one of them" }}
{{- end }}
{{- if and .Values.model.path (not .Values.model.volume) }}
{{- fail "model.path is a path in model.volume: name the volume" }}
{{- end }}
FRAUD_HTTP_HOST: {{ .Values.http.host | quote }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ include "fraud-service.text" $value | quote }}
{{- end }}
{{- end -}}
