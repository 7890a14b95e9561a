{{- define "fraud-service.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels of selectors. They must never change, because Kubernetes forbids it. */ -}}
{{- define "fraud-service.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "fraud-service.labels" -}}
{{ include "fraud-service.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "fraud-service.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "fraud-service.fullname" .) "default" .Values.serviceAccount.enabled) -}}
{{- end -}}

{{- /* The image reference. Takes a list: the root, and a map with repository, tag and digest. */ -}}
{{- define "fraud-service.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository ($image.tag | default $root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- /* Settings without secrets, equal in all pods. Numbers go through JSON, because the service rejects 1e+06 as integer. */ -}}
{{- define "fraud-service.settings" -}}
FRAUD_BOOTSTRAP_SERVERS: {{ .Values.kafka.bootstrapServers | quote }}
{{- if or .Values.scorer.enabled .Values.learner.enabled .Values.refit.enabled }}
{{- with .Values.signing }}
{{- if .secret }}
{{- if has .secret (list $.Values.http.tlsSecret $.Values.kafka.tls.caSecret $.Values.kafka.tls.clientSecret $.Values.kafka.sasl.secret) }}
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
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ ternary $value (toJson $value) (kindIs "string" $value) | quote }}
{{- end }}
{{- end -}}

{{- /* The Kafka credentials of a component: its own, or the common ones. Takes a list: the root, and the component. Returns JSON. */ -}}
{{- define "fraud-service.credentials" -}}
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
{{- range $option, $_ := $kafka.options -}}
{{- if regexMatch "^(sasl\\.(username|password|jaas|oauthbearer\\.client\\.secret)|ssl[._](certificate|key|keystore)([._]|$))" $option -}}
{{- fail (printf "kafka.options: %s would give all components one user; use kafka.sasl, kafka.tls, or the kafka values of a component" $option) -}}
{{- end -}}
{{- if and (eq $option "security.protocol") (or $kafka.sasl.enabled $kafka.tls.enabled) -}}
{{- fail "kafka.options: security.protocol would override kafka.sasl and kafka.tls; remove it, because they set it" -}}
{{- end -}}
{{- if has $option (list "bootstrap.servers" "metadata.broker.list") -}}
{{- fail (printf "kafka.options: %s would name brokers that the network policy does not allow; set kafka.bootstrapServers" $option) -}}
{{- end -}}
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

{{- /* The Kafka principal of a component: its user name with SASL, else the Secret of its certificate, else empty. An option with its own identity (OAuth, Kerberos) gives all components the same principal. */ -}}
{{- define "fraud-service.principal" -}}
{{- $credentials := include "fraud-service.credentials" . | fromJson -}}
{{- $all := "" -}}
{{- range $option, $_ := (index . 0).Values.kafka.options -}}
{{- if regexMatch "^sasl\\.(mechanisms?$|oauthbearer\\.|kerberos\\.)" $option }}{{ $all = "everybody" }}{{ end -}}
{{- end -}}
{{- $all | default $credentials.username | default $credentials.clientSecret -}}
{{- end -}}

{{- /* The Secret with the signing keys, for a component that signs or verifies, and the Secret for HTTPS, for one that serves it. Both take a list: the root, and the component. */ -}}
{{- define "fraud-service.signingSecret" -}}
{{- if has (index . 1) (list "scorer" "learner" "refit") -}}{{- (index . 0).Values.signing.secret -}}{{- end -}}
{{- end -}}

{{- define "fraud-service.httpSecret" -}}
{{- if has (index . 1) (list "scorer" "learner" "tokenizer") -}}{{- (index . 0).Values.http.tlsSecret -}}{{- end -}}
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
{{- if $kafka.sasl.enabled -}}
{{- $_ := set $options "sasl.mechanism" $kafka.sasl.mechanism -}}
{{- $_ := set $options "sasl.username" $credentials.username -}}
{{- end -}}
{{- range $name, $value := $kafka.options -}}
{{- $_ := set $options $name $value -}}
{{- end -}}
{{- mustToRawJson $options | replace "$(" "$$(" -}}
{{- end -}}

{{- /* Pod spec for all pods: Pod Security Standard "restricted", without a token. Takes a list: the root, and the component. */ -}}
{{- define "fraud-service.pod" -}}
{{- $credentials := include "fraud-service.credentials" . | fromJson -}}
{{- $signing := include "fraud-service.signingSecret" . -}}
{{- $http := include "fraud-service.httpSecret" . -}}
{{- with index . 0 -}}
serviceAccountName: {{ include "fraud-service.serviceAccount" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.scheduling }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- end }}
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 256Mi
  {{- with .Values.kafka.sasl }}
  {{- if .enabled }}
  # One file per option, named after it.
  - name: kafka-secrets
    secret:
      secretName: {{ $credentials.secret | quote }}
      defaultMode: 0440
      items:
        - key: {{ .passwordKey | quote }}
          path: sasl.password
  {{- end }}
  {{- end }}
  {{- with $signing }}
  # One file per key, named after it.
  - name: signing-keys
    secret:
      secretName: {{ . | quote }}
      defaultMode: 0440
  {{- end }}
  {{- with $http }}
  - name: http-tls
    secret:
      secretName: {{ . | quote }}
      defaultMode: 0440
  {{- end }}
  {{- with .Values.kafka.tls }}
  {{- if and .enabled .caSecret }}
  - name: kafka-ca
    secret:
      secretName: {{ .caSecret | quote }}
      items:
        - key: {{ .caKey | quote }}
          path: {{ .caKey | quote }}
  {{- end }}
  {{- if $credentials.clientSecret }}
  - name: kafka-client
    secret:
      secretName: {{ $credentials.clientSecret | quote }}
      defaultMode: 0440
      items:
        - key: {{ .clientCertificateKey | quote }}
          path: {{ .clientCertificateKey | quote }}
        - key: {{ .clientPrivateKeyKey | quote }}
          path: {{ .clientPrivateKeyKey | quote }}
  {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- /* Container spec for all containers. Callers append their own `env` and `volumeMounts`. Takes a list: the root, and the component. */ -}}
{{- define "fraud-service.container" -}}
{{- $kafka := include "fraud-service.kafka" . -}}
{{- $credentials := include "fraud-service.credentials" . | fromJson -}}
{{- $signing := include "fraud-service.signingSecret" . -}}
{{- $http := include "fraud-service.httpSecret" . -}}
{{- with index . 0 -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
envFrom:
  - configMapRef:
      name: {{ include "fraud-service.fullname" . }}
env:
  {{- with .Values.kafka.sasl }}
  {{- if .enabled }}
  - name: KAFKA_USERNAME
    value: {{ $credentials.username | quote }}
  - name: FRAUD_KAFKA_CONFIG_DIR
    value: /etc/fraud-service/kafka-secrets
  {{- end }}
  {{- end }}
  {{- if $signing }}
  - name: FRAUD_SIGNING_KEY_DIR
    value: /etc/fraud-service/signing-keys
  {{- end }}
  {{- if $http }}
  - name: FRAUD_HTTP_TLS_CERT
    value: /etc/fraud-service/http-tls/tls.crt
  - name: FRAUD_HTTP_TLS_KEY
    value: /etc/fraud-service/http-tls/tls.key
  {{- end }}
  - name: FRAUD_KAFKA_CONFIG
    value: {{ $kafka | quote }}
{{- end -}}
{{- end -}}

{{- define "fraud-service.mounts" -}}
{{- $credentials := include "fraud-service.credentials" . | fromJson -}}
{{- $signing := include "fraud-service.signingSecret" . -}}
{{- $http := include "fraud-service.httpSecret" . -}}
{{- with index . 0 -}}
- name: tmp
  mountPath: /tmp
{{- if .Values.kafka.sasl.enabled }}
- name: kafka-secrets
  mountPath: /etc/fraud-service/kafka-secrets
  readOnly: true
{{- end }}
{{- if $signing }}
- name: signing-keys
  mountPath: /etc/fraud-service/signing-keys
  readOnly: true
{{- end }}
{{- if $http }}
- name: http-tls
  mountPath: /etc/fraud-service/http-tls
  readOnly: true
{{- end }}
{{- with .Values.kafka.tls }}
{{- if and .enabled .caSecret }}
- name: kafka-ca
  mountPath: /etc/fraud-service/kafka-ca
  readOnly: true
{{- end }}
{{- if $credentials.clientSecret }}
- name: kafka-client
  mountPath: /etc/fraud-service/kafka-client
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* A long-running process. Takes a dict: root, component, verb, values, grace (seconds), replicas (absent: the autoscaler sets them). */ -}}
{{- define "fraud-service.statefulset" -}}
{{- $root := .root -}}
{{- $name := printf "%s-%s" (include "fraud-service.fullname" $root) .component -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "fraud-service.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  {{- with .replicas }}
  replicas: {{ . }}
  {{- end }}
  serviceName: {{ $name }}
  # Pods start in parallel, because each has its own partitions and state.
  podManagementPolicy: Parallel
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "fraud-service.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
  template:
    metadata:
      # Without the version of the chart, so that an upgrade without changes does not restart the pods.
      labels:
        {{- include "fraud-service.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
      annotations:
        # Pods read the ConfigMap at the start, so a new checksum restarts them.
        checksum/settings: {{ include "fraud-service.settings" $root | sha256sum }}
    spec:
      # Time to finish and commit the current work. A killed pod loses nothing, but repeats that work.
      terminationGracePeriodSeconds: {{ .grace }}
      {{- if and $root.Values.topologySpread.enabled (eq .component "scorer") }}
      topologySpreadConstraints:
        {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
        - maxSkew: 1
          topologyKey: {{ . }}
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "fraud-service.selector" $root | nindent 14 }}
              app.kubernetes.io/component: scorer
        {{- end }}
      {{- end }}
      {{- include "fraud-service.pod" (list $root .component) | nindent 6 }}
        {{- if not .values.volume }}
        - name: state
          emptyDir:
            sizeLimit: 64Mi
        {{- end }}
        {{- with .values.keysSecret }}
        # One file per key, named after it. No other pod mounts them.
        - name: tokenizer-keys
          secret:
            secretName: {{ . | quote }}
            defaultMode: 0440
        {{- end }}
      containers:
        - name: {{ .component }}
          image: {{ include "fraud-service.image" (list $root $root.Values.image) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          command: [fraud-service, {{ .verb }}]
          {{- include "fraud-service.container" (list $root .component) | nindent 10 }}
            # group.instance.id and transactional.id, equal after a restart. A restarted pod fences its predecessor.
            - name: FRAUD_INSTANCE_ID
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            - name: FRAUD_STATE_DIR
              value: /var/lib/fraud-service
            {{- if .values.keysSecret }}
            - name: FRAUD_TOKENIZER_KEY_DIR
              value: /etc/fraud-service/tokenizer-keys
            {{- end }}
          ports:
            - name: http
              containerPort: 8000
          # Succeeds when the pod is ready for the first time, with its state recovered.
          startupProbe:
            httpGet: {path: /startupz, port: http, scheme: {{ ternary "HTTPS" "HTTP" (ne $root.Values.http.tlsSecret "") }}}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: {{ div .values.startupSeconds 5 }}
          # Checks only the poll loop, because a restart would not repair a broker.
          livenessProbe:
            httpGet: {path: /livez, port: http, scheme: {{ ternary "HTTPS" "HTTP" (ne $root.Values.http.tlsSecret "") }}}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 3
          readinessProbe:
            httpGet: {path: /readyz, port: http, scheme: {{ ternary "HTTPS" "HTTP" (ne $root.Values.http.tlsSecret "") }}}
            periodSeconds: 5
            timeoutSeconds: 5
            failureThreshold: 2
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          volumeMounts:
            - name: state
              mountPath: /var/lib/fraud-service
            {{- if .values.keysSecret }}
            - name: tokenizer-keys
              mountPath: /etc/fraud-service/tokenizer-keys
              readOnly: true
            {{- end }}
            {{- include "fraud-service.mounts" (list $root .component) | nindent 12 }}
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
          {{- include "fraud-service.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ .component }}
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
