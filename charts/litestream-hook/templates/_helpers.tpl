{{/* The name of what lives outside of namespaces: one for each variant. */}}
{{- define "litestream-hook.cluster" -}}
{{ with .Values.variant }}{{ . }}-{{ end }}litestream-hook
{{- end }}

{{/* The group of the annotations, with its slash. */}}
{{- define "litestream-hook.group" -}}
{{ with .Values.variant }}{{ . }}.{{ end }}litestream-hook.kaidotio.github.io/
{{- end }}

{{- define "litestream-hook.selector" -}}
app.kubernetes.io/name: litestream-hook
{{- end }}

{{- define "litestream-hook.labels" -}}
{{ include "litestream-hook.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- with .Values.extraLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "litestream-hook.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "litestream-hook.subject" -}}
- kind: ServiceAccount
  name: litestream-hook
  namespace: {{ .Release.Namespace }}
{{- end }}
