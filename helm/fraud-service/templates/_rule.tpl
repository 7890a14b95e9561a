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
