{{- /* The secret option of a SASL login. */ -}}
{{- define "fraud-service.loginOption" -}}
{{- ternary "sasl.oauthbearer.client.secret" "sasl.password" (eq .Values.kafka.sasl.mechanism "OAUTHBEARER") -}}
{{- end -}}

{{- /* The URL from which OAUTHBEARER gets its tokens: a value, or an option. */ -}}
{{- define "fraud-service.tokenEndpoint" -}}
{{- .Values.kafka.sasl.tokenEndpoint | default (get (.Values.kafka.options | default dict) "sasl.oauthbearer.token.endpoint.url") -}}
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
