{{/* Labels of every object. None says Helm: `helm install` adds its own, and plain manifests have none. */}}
{{- define "palisade.labels" -}}
app.kubernetes.io/name: palisade
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: palisade
{{- end }}

{{/* What selects the agents' pods. Never changes: a DaemonSet's selector can't be changed. */}}
{{- define "palisade.selector" -}}
app.kubernetes.io/name: palisade
app.kubernetes.io/component: agent
{{- end }}

{{- define "palisade.image" -}}
{{- with .Values.image -}}
{{- if .registry }}{{ .registry }}/{{ end }}{{ .name }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* ADDRESS:PORT to listen on; an IPv6 address in brackets. */}}
{{- define "palisade.listen" -}}
{{- with .Values.agent.listen -}}
{{- if contains ":" .address }}[{{ .address }}]{{ else }}{{ .address }}{{ end }}:{{ .port }}
{{- end -}}
{{- end }}

{{/* "true" if only the node itself can ask the agent. */}}
{{- define "palisade.loopback" -}}
{{- with .Values.agent.listen.address }}{{ or (hasPrefix "127." .) (eq . "::1") }}{{ end }}
{{- end }}

{{/* A probe of a path. Health is served on the node's loopback address alone, where no pod can reach it. */}}
{{- define "palisade.probe" -}}
httpGet:
  path: {{ . }}
  port: health
  host: 127.0.0.1
{{- end }}
