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

{{- /* The secret option of a SASL login. */ -}}
{{- define "fraud-service.loginOption" -}}
{{- ternary "sasl.oauthbearer.client.secret" "sasl.password" (eq .Values.kafka.sasl.mechanism "OAUTHBEARER") -}}
{{- end -}}

{{- /* Stops the installation when options contradict other values, or one of them would hide a user. */ -}}
{{- define "fraud-service.checkOptions" -}}
{{- $kafka := .Values.kafka -}}
{{- $secret := $kafka.secretOptions | default dict -}}
{{- range $option, $_ := $kafka.options -}}
{{- if regexMatch "^(sasl\\.(username|password|jaas|oauthbearer\\.client\\.secret)|ssl[._](certificate|key|keystore)([._]|$))" $option -}}
{{- fail (printf "kafka.options: %s would give all components one user; use kafka.sasl, kafka.tls, or the kafka values of a component" $option) -}}
{{- end -}}
{{- if hasKey $secret $option -}}
{{- fail (printf "kafka.options and kafka.secretOptions both have %s: remove one" $option) -}}
{{- end -}}
{{- end -}}
{{- range $option, $_ := merge dict ($kafka.options | default dict) $secret -}}
{{- if and (eq $option "security.protocol") (or $kafka.sasl.enabled $kafka.tls.enabled) -}}
{{- fail "kafka.options: security.protocol would override kafka.sasl and kafka.tls; remove it, because they set it" -}}
{{- end -}}
{{- if has $option (list "bootstrap.servers" "metadata.broker.list") -}}
{{- fail (printf "kafka.options: %s would name brokers that the network policy does not allow; set kafka.bootstrapServers" $option) -}}
{{- end -}}
{{- end -}}
{{- if and $kafka.sasl.enabled (hasKey $secret (include "fraud-service.loginOption" .)) -}}
{{- fail (printf "kafka.secretOptions: kafka.sasl.secret is already %s; remove one" (include "fraud-service.loginOption" .)) -}}
{{- end -}}
{{- if and $kafka.sasl.tokenEndpoint (or (not $kafka.sasl.enabled) (ne $kafka.sasl.mechanism "OAUTHBEARER")) -}}
{{- fail "kafka.sasl.tokenEndpoint has no effect without kafka.sasl.enabled and the mechanism OAUTHBEARER" -}}
{{- end -}}
{{- end -}}

{{- /* The Kafka credentials of a component: its own, or the common ones. Takes a list: the root, and the component. Returns JSON. */ -}}
{{- define "fraud-service.credentials" -}}
{{- include "fraud-service.checkOptions" (index . 0) -}}
{{- $kafka := (index . 0).Values.kafka -}}
{{- $own := (index (index . 0).Values (index . 1)).kafka -}}
{{- if ne (empty $own.username) (empty $own.secret) -}}
{{- fail (printf "%s.kafka: username and secret belong together: set both or neither" (index . 1)) -}}
{{- end -}}
{{- if and $own.username (not $kafka.sasl.enabled) -}}
{{- fail (printf "%s.kafka.username has no effect without kafka.sasl.enabled" (index . 1)) -}}
{{- end -}}
{{- if and $own.clientSecret (not $kafka.tls.enabled) -}}
{{- fail (printf "%s.kafka.clientSecret has no effect without kafka.tls.enabled" (index . 1)) -}}
{{- end -}}
{{- $found := dict "username" "" "secret" "" "clientSecret" "" -}}
{{- if $kafka.sasl.enabled -}}
{{- $_ := set $found "username" ($own.username | default $kafka.sasl.username) -}}
{{- $_ := set $found "secret" (required "kafka.sasl.secret: name the Secret with the password" ($own.secret | default $kafka.sasl.secret)) -}}
{{- end -}}
{{- if $kafka.tls.enabled -}}
{{- $_ := set $found "clientSecret" ($own.clientSecret | default $kafka.tls.clientSecret) -}}
{{- end -}}
{{- mustToJson $found -}}
{{- end -}}

{{- /* The Kafka principal of a component: its user name with SASL, else the Secret of its certificate, else empty. An option with its own identity (OAuth, Kerberos, a secret login) gives all components the same principal. */ -}}
{{- define "fraud-service.principal" -}}
{{- $credentials := include "fraud-service.credentials" . | fromJson -}}
{{- $all := "" -}}
{{- with (index . 0).Values.kafka -}}
{{- range $option, $_ := merge dict (.options | default dict) (.secretOptions | default dict) -}}
{{- $identity := regexMatch "^(sasl\\.(mechanisms?$|username|password|oauthbearer\\.|kerberos\\.)|ssl[._](certificate|key|keystore)([._]|$))" $option -}}
{{- if and $identity (not (has $option (list "sasl.oauthbearer.extensions" "ssl.key.password" "ssl.keystore.password"))) }}{{ $all = "everybody" }}{{ end -}}
{{- end -}}
{{- end -}}
{{- $all | default $credentials.username | default $credentials.clientSecret -}}
{{- end -}}

{{- /* FRAUD_KAFKA_CONFIG, without secrets. Kubernetes would expand `$(`, so it is escaped as `$$(`. */ -}}
{{- define "fraud-service.kafka" -}}
{{- $kafka := (index . 0).Values.kafka -}}
{{- $credentials := include "fraud-service.credentials" . | fromJson -}}
{{- $options := dict "security.protocol" (printf "%s%s" (ternary "SASL_" "" $kafka.sasl.enabled) (ternary "SSL" "PLAINTEXT" $kafka.tls.enabled)) -}}
{{- if and $kafka.tls.enabled $kafka.tls.caSecret -}}
{{- $_ := set $options "ssl.ca.location" (printf "/etc/fraud-service/kafka-ca/%s" $kafka.tls.caKey) -}}
{{- end -}}
{{- if $credentials.clientSecret -}}
{{- $_ := set $options "ssl.certificate.location" (printf "/etc/fraud-service/kafka-client/%s" $kafka.tls.clientCertificateKey) -}}
{{- $_ := set $options "ssl.key.location" (printf "/etc/fraud-service/kafka-client/%s" $kafka.tls.clientPrivateKeyKey) -}}
{{- end -}}
{{- with $kafka.sasl -}}
{{- if .enabled -}}
{{- $_ := set $options "sasl.mechanism" .mechanism -}}
{{- if eq .mechanism "OAUTHBEARER" -}}
{{- $_ := set $options "sasl.oauthbearer.method" "oidc" -}}
{{- $_ := set $options "sasl.oauthbearer.client.id" $credentials.username -}}
{{- with .tokenEndpoint }}{{ $_ := set $options "sasl.oauthbearer.token.endpoint.url" . }}{{ end -}}
{{- with .scope }}{{ $_ := set $options "sasl.oauthbearer.scope" . }}{{ end -}}
{{- else -}}
{{- $_ := set $options "sasl.username" $credentials.username -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := $kafka.options -}}
{{- $_ := set $options $name (include "fraud-service.text" $value) -}}
{{- end -}}
{{- mustToRawJson $options | replace "$(" "$$(" -}}
{{- end -}}

{{- /* What a component mounts read-only below /etc/fraud-service: by folder, the source of its volume. Takes a list: the root, and the component. */ -}}
{{- define "fraud-service.folders" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $credentials := include "fraud-service.credentials" . | fromJson -}}
{{- $has_model := has $component (list "scorer" "learner" "refit") -}}
{{- $serves := has $component (list "scorer" "learner" "tokenizer") -}}
{{- with $root.Values }}
{{- if or $credentials.secret .kafka.secretOptions }}
# One file per option, named after it.
kafka-secrets:
  projected:
    defaultMode: 0440
    sources:
      {{- with $credentials.secret }}
      - secret: {name: {{ . | quote }}, items: [{key: {{ $root.Values.kafka.sasl.passwordKey | quote }}, path: {{ include "fraud-service.loginOption" $root }}}]}
      {{- end }}
      {{- range $option, $from := .kafka.secretOptions }}
      - secret: {name: {{ $from.secret | quote }}, items: [{key: {{ $from.key | quote }}, path: {{ $option | quote }}}]}
      {{- end }}
{{- end }}
{{- if and .kafka.tls.enabled .kafka.tls.caSecret }}
kafka-ca:
  secret: {secretName: {{ .kafka.tls.caSecret | quote }}, items: [{key: {{ .kafka.tls.caKey | quote }}, path: {{ .kafka.tls.caKey | quote }}}]}
{{- end }}
{{- with $credentials.clientSecret }}
kafka-client:
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
    items:
      {{- range list $root.Values.kafka.tls.clientCertificateKey $root.Values.kafka.tls.clientPrivateKeyKey }}
      - {key: {{ . | quote }}, path: {{ . | quote }}}
      {{- end }}
{{- end }}
{{- /* One file per key, named after it. */}}
{{- if and $has_model .signing.secret }}
signing-keys:
  secret: {secretName: {{ .signing.secret | quote }}, defaultMode: 0440}
{{- end }}
{{- if and (eq $component "tokenizer") .tokenizer.keysSecret }}
tokenizer-keys:
  secret: {secretName: {{ .tokenizer.keysSecret | quote }}, defaultMode: 0440}
{{- end }}
{{- if and $has_model .model.volume }}
model:
  {{- toYaml .model.volume | nindent 2 }}
{{- end }}
{{- if and $serves .http.tlsSecret }}
http-tls:
  secret: {secretName: {{ .http.tlsSecret | quote }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Variables of a component. Takes a list: the root, and the component. */ -}}
{{- define "fraud-service.env" -}}
{{- $root := index . 0 -}}{{- $component := index . 1 -}}
{{- $folders := include "fraud-service.folders" . | fromYaml -}}
{{- $credentials := include "fraud-service.credentials" . | fromJson -}}
{{- with $root.Values.kafka.sasl }}
{{- if .enabled }}
# The autoscaler reads these.
- name: KAFKA_USERNAME
  value: {{ $credentials.username | quote }}
{{- if eq .mechanism "OAUTHBEARER" }}
- name: KAFKA_TOKEN_ENDPOINT
  value: {{ .tokenEndpoint | quote }}
- name: KAFKA_TOKEN_SCOPE
  value: {{ .scope | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- if hasKey $folders "kafka-secrets" }}
- name: FRAUD_KAFKA_CONFIG_DIR
  value: /etc/fraud-service/kafka-secrets
{{- end }}
{{- if hasKey $folders "signing-keys" }}
- name: FRAUD_SIGNING_KEY_DIR
  value: /etc/fraud-service/signing-keys
{{- end }}
{{- /* It tells the topics job that there are raw topics; the keys themselves are not there. */}}
{{- if or (hasKey $folders "tokenizer-keys") (and (eq $component "topics") $root.Values.tokenizer.enabled) }}
- name: FRAUD_TOKENIZER_KEY_DIR
  value: /etc/fraud-service/tokenizer-keys
{{- end }}
{{- if hasKey $folders "model" }}
- name: FRAUD_MODEL_DIR
  value: {{ list "/etc/fraud-service/model" $root.Values.model.path | compact | join "/" | quote }}
{{- end }}
{{- if hasKey $folders "http-tls" }}
- name: FRAUD_HTTP_TLS_CERT
  value: /etc/fraud-service/http-tls/tls.crt
- name: FRAUD_HTTP_TLS_KEY
  value: /etc/fraud-service/http-tls/tls.key
{{- end }}
- name: FRAUD_KAFKA_CONFIG
  value: {{ include "fraud-service.kafka" . | quote }}
{{- end -}}

{{- /* Labels and annotations of a pod, without the version of the chart, so that an upgrade without changes does not restart it. Takes a list: the root, and the component. */ -}}
{{- define "fraud-service.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $own := dict }}{{ range list "podLabels" "podAnnotations" }}{{ $_ := set $own . (include "fraud-service.own" (append $ .) | fromJson) }}{{ end -}}
labels:
  {{- mergeOverwrite dict ($root.Values.commonLabels | default dict) $own.podLabels (include "fraud-service.selector" . | fromYaml) | toYaml | nindent 2 }}
annotations:
  # Pods read the ConfigMap at the start, so a new checksum restarts them.
  checksum/settings: {{ include "fraud-service.settings" $root | sha256sum }}
  {{- with $own.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* Pod spec. Takes a dict: root, component, command, resources and, if need be, container (its name), image, state (the kind of its volume), more (fields of a long-running container). */ -}}
{{- define "fraud-service.pod" -}}
{{- $root := .root -}}{{- $where := list .root .component -}}
{{- $folders := include "fraud-service.folders" $where | fromYaml -}}
{{- $own := dict -}}
{{- range list "podSecurityContext" "containerSecurityContext" "scheduling" }}{{ $_ := set $own . (include "fraud-service.own" (append $where .) | fromJson) }}{{ end -}}
{{- range list "extraEnv" "extraVolumes" "extraVolumeMounts" "extraContainers" "extraInitContainers" }}{{ $_ := set $own . (include "fraud-service.own" (append $where .) | fromJsonArray) }}{{ end -}}
serviceAccountName: {{ include "fraud-service.serviceAccount" $root | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  {{- toYaml $own.podSecurityContext | nindent 2 }}
{{- range $name, $value := $own.scheduling }}
{{- with $value }}
{{ dict $name . | toYaml }}
{{- end }}
{{- end }}
{{- if and (eq .component "scorer") $root.Values.topologySpread.enabled (not $own.scheduling.topologySpreadConstraints) }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "fraud-service.selector" $where | nindent 8 }}
  {{- end }}
{{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 256Mi
  {{- if eq .state "emptyDir" }}
  - name: state
    emptyDir:
      sizeLimit: 64Mi
  {{- end }}
  {{- range $name, $source := $folders }}
  - name: {{ $name }}
    {{- toYaml $source | nindent 4 }}
  {{- end }}
  {{- with $own.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $own.extraInitContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .container | default .component }}
    image: {{ include "fraud-service.image" (list $root (.image | default $root.Values.image)) }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    command:
      {{- toYaml .command | nindent 6 }}
    securityContext:
      {{- toYaml $own.containerSecurityContext | nindent 6 }}
    envFrom:
      - configMapRef:
          name: {{ include "fraud-service.fullname" $root }}
    env:
      {{- include "fraud-service.env" $where | trim | nindent 6 }}
      {{- if .state }}
      # group.instance.id and transactional.id, equal after a restart. A restarted pod fences its predecessor.
      - name: FRAUD_INSTANCE_ID
        valueFrom:
          fieldRef:
            fieldPath: metadata.name
      - name: FRAUD_STATE_DIR
        value: /var/lib/fraud-service
      {{- end }}
      {{- with $own.extraEnv }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
    {{- with .more }}
    {{- . | nindent 4 }}
    {{- end }}
    resources:
      {{- toYaml .resources | nindent 6 }}
    volumeMounts:
      - name: tmp
        mountPath: /tmp
      {{- if .state }}
      - name: state
        mountPath: /var/lib/fraud-service
      {{- end }}
      {{- range $name, $_ := $folders }}
      - name: {{ $name }}
        mountPath: /etc/fraud-service/{{ $name }}
        readOnly: true
      {{- end }}
      {{- with $own.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  {{- if .state }}
  {{- with $own.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end -}}

{{- /* Port and probes of a long-running container. Takes a list: the root, and the seconds in which it must become ready. */ -}}
{{- define "fraud-service.probes" -}}
{{- $scheme := ternary "HTTPS" "HTTP" (ne (index . 0).Values.http.tlsSecret "") -}}
ports:
  - name: http
    containerPort: 8000
# Succeeds when the pod is ready for the first time, with its state recovered.
startupProbe:
  httpGet: {path: /startupz, port: http, scheme: {{ $scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ div (index . 1) 5 }}
# Checks only the poll loop, because a restart would not repair a broker.
livenessProbe:
  httpGet: {path: /livez, port: http, scheme: {{ $scheme }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: http, scheme: {{ $scheme }}}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{- /* A long-running process. Takes a dict: root, component, verb, values, grace (seconds), replicas (absent: the autoscaler sets them). */ -}}
{{- define "fraud-service.statefulset" -}}
{{- $root := .root -}}{{- $where := list .root .component -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  {{- include "fraud-service.metadata" . | nindent 2 }}
spec:
  {{- with .replicas }}
  replicas: {{ . }}
  {{- end }}
  serviceName: {{ include "fraud-service.fullname" $root }}-{{ .component }}
  # Pods start in parallel, because each has its own partitions and state.
  podManagementPolicy: Parallel
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "fraud-service.selector" $where | nindent 6 }}
  template:
    metadata:
      {{- include "fraud-service.podMetadata" $where | nindent 6 }}
    spec:
      # Time to finish and commit the current work. A killed pod loses nothing, but repeats that work.
      terminationGracePeriodSeconds: {{ .grace }}
      {{- $probes := include "fraud-service.probes" (list $root .values.startupSeconds) }}
      {{- $pod := dict "command" (list "fraud-service" .verb) "resources" .values.resources "state" (ternary "claim" "emptyDir" (hasKey .values "volume")) "more" $probes }}
      {{- include "fraud-service.pod" (merge $pod (pick . "root" "component")) | nindent 6 }}
  {{- if .values.volume }}
  # Keep volumes when the release is removed or scaled in, because reading the state again costs more.
  persistentVolumeClaimRetentionPolicy:
    whenDeleted: Retain
    whenScaled: Retain
  volumeClaimTemplates:
    - apiVersion: v1
      kind: PersistentVolumeClaim
      metadata:
        name: state
        # Only labels that no upgrade changes: Kubernetes forbids changes here.
        labels:
          {{- include "fraud-service.selector" $where | nindent 10 }}
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .values.volume.storageClass }}
        storageClassName: {{ . | quote }}
        {{- end }}
        resources:
          requests:
            storage: {{ .values.volume.size | quote }}
  {{- end }}
{{- end -}}

{{- /* A rule with the changes of the values: nothing for an alert that is off. `# NAME` after a number in an expression marks a threshold. Takes a list: the root, the name of the group, and the rule. Returns JSON. */ -}}
{{- define "fraud-service.rule" -}}
{{- $values := (index . 0).Values -}}{{- $group := index . 1 -}}{{- $rule := index . 2 -}}
{{- $changes := get ($values.prometheusRule.alerts | default dict) ($rule.alert | default "") | default dict -}}
{{- if $rule.alert -}}
{{- range $name, $value := omit $changes "enabled" "for" "severity" -}}
{{- $_ := set $rule "expr" (regexReplaceAll (printf "[0-9.]+ # %s\\b" $name) $rule.expr (printf "%s # %s" (toJson $value) $name)) -}}
{{- end -}}
{{- with $changes.for }}{{ $_ := set $rule "for" . }}{{ end -}}
{{- $_ := set $rule "labels" (merge dict (pick $changes "severity") ($rule.labels | default dict) ($values.prometheusRule.alertLabels | default dict)) -}}
{{- $annotations := $rule.annotations | default dict -}}
{{- if $annotations.runbook_url }}{{ $_ := set $annotations "runbook_url" (printf "%s#%s" $values.links.runbook (lower $rule.alert)) }}{{ end -}}
{{- with $values.links.grafana -}}
{{- $board := ternary "models" "overview" (hasSuffix ".models" $group) -}}
{{- $_ := set $annotations "dashboard_url" (printf "%s/d/fraud-service-%s?var-cluster={{ $labels.cluster }}&var-namespace={{ $labels.namespace }}" . $board) -}}
{{- end -}}
{{- $_ := set $rule "annotations" $annotations -}}
{{- end -}}
{{- if dig "enabled" true $changes }}{{ mustToRawJson $rule }}{{ end -}}
{{- end -}}
