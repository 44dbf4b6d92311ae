{{/* Names, labels, and small pieces that several objects share. */}}

{{- define "latentmill.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{/* (dict "root" $ "part" "worker") -> labels that never change, for selectors */}}
{{- define "latentmill.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .part }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "latentmill.labels" -}}
{{ include "latentmill.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "latentmill.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "latentmill.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{- define "latentmill.image" -}}
{{- $target := ternary "cuda" "cpu" .Values.worker.gpu.enabled -}}
{{ .Values.image.repository }}:{{ default (printf "%s-%s" .Chart.AppVersion $target) .Values.image.tag }}
{{- end -}}

{{/* A value as the text of an environment variable. Numbers of values files are floats: 1e+09 is no number of ours. */}}
{{- define "latentmill.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* The names of the Service of the server, for its Host check, with those that users give. */}}
{{- define "latentmill.serverNames" -}}
{{- $service := printf "%s-server" (include "latentmill.fullname" .) -}}
{{- $namespaced := printf "%s.%s" $service .Release.Namespace -}}
{{- $names := list "localhost" $service $namespaced (printf "%s.svc" $namespaced) (printf "%s.svc.cluster.local" $namespaced) -}}
{{- $ingress := .Values.server.ingress -}}
{{- if and $ingress.enabled $ingress.host -}}{{- $names = append $names $ingress.host -}}{{- end -}}
{{ concat $names .Values.server.names | uniq | join "," }}
{{- end -}}

{{/* The settings of a secret: those whose value is in a file, and those that are the path of a file. */}}
{{- define "latentmill.secretKeys" -}}
{{- $keys := deepCopy .root.Values.secrets.keys -}}
{{- if eq .part "scheduler" -}}{{- $keys = merge $keys .root.Values.scheduler.secretKeys -}}{{- end -}}
{{ toYaml $keys }}
{{- end -}}
