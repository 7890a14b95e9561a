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
  value: {{ include "fraud-service.tokenEndpoint" $root | quote }}
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
