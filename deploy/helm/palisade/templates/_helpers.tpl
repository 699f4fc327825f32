{{/* Labels of every object. `helm install` adds its own; plain manifests have no labels of Helm. */}}
{{- define "palisade.labels" -}}
app.kubernetes.io/name: palisade
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: palisade
{{- end }}

{{/* The selector of the agents' pods. It must never change: a DaemonSet's selector is immutable. */}}
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

{{/* "true" if the directories of CNI are mounted. At the removal too: a plugin that an earlier setting has added lets no pod start without an agent. */}}
{{- define "palisade.cni" -}}
{{- if or (eq .Values.agent.cniChain "on") .Values.removeRules -}}true{{- end -}}
{{- end }}

{{/* The address to listen on, as ADDRESS:PORT. An IPv6 address is in brackets. */}}
{{- define "palisade.listen" -}}
{{- with .Values.agent.listen -}}
{{- if contains ":" .address }}[{{ .address }}]{{ else }}{{ .address }}{{ end }}:{{ .port }}
{{- end -}}
{{- end }}

{{/* "true" if the agent listens on a loopback address only. */}}
{{- define "palisade.loopback" -}}
{{- with .Values.agent.listen.address }}{{ or (hasPrefix "127." .) (eq . "::1") }}{{ end }}
{{- end }}

{{/* A probe of a path. Health is served on the node's loopback address, which pods can't reach. */}}
{{- define "palisade.probe" -}}
httpGet:
  path: {{ . }}
  port: health
  host: 127.0.0.1
{{- end }}
