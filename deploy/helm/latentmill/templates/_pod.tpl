{{/* What the pods of worker, scheduler and server have in common. (dict "root" $ "part" "worker" "values" .Values.worker) */}}

{{- define "latentmill.podSecurity" -}}
runAsNonRoot: true
{{- if not .Values.openshift }}
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "latentmill.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "latentmill.podMetadata" -}}
labels:
  {{- include "latentmill.labels" (dict "root" .root "part" .part) | nindent 2 }}
  {{- with .values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  # A change of the settings starts the pods anew; tenants are read again by themselves.
  checksum/settings: {{ include (print .root.Template.BasePath "/settings.yaml") .root | sha256sum }}
  {{- with .values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "latentmill.podPlacement" -}}
serviceAccountName: {{ include "latentmill.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "latentmill.podSecurity" .root | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "latentmill.selector" (dict "root" .root "part" .part) | nindent 8 }}
{{- end -}}

{{/* Everything is read-only but two directories of the pod. No home is needed. */}}
{{- define "latentmill.environment" -}}
- {name: HOME, value: /var/lib/latentmill}
- {name: TMPDIR, value: /tmp}
- {name: LATENTMILL_STATE_DIR, value: /var/lib/latentmill/state}
- {name: LATENTMILL_CACHE_DIR, value: /var/lib/latentmill/cache}
- {name: LATENTMILL_SOURCE_CACHE, value: /var/lib/latentmill/sources}
- {name: LATENTMILL_COLUMN_CACHE, value: /var/lib/latentmill/columns}
- {name: LATENTMILL_COMPILE_CACHE, value: /var/lib/latentmill/compiled}
{{- range $name, $key := include "latentmill.secretKeys" . | fromYaml }}
{{- if $key }}
- {name: LATENTMILL_{{ upper $name }}{{ if not (hasSuffix "_file" $name) }}_FILE{{ end }}, value: /etc/latentmill/secrets/{{ $name }}}
{{- end }}
{{- end }}
{{- if and .root.Values.tenants (ne .part "scheduler") }}
- {name: LATENTMILL_TENANTS_FILE, value: /etc/latentmill/tenants/tenants.yaml}
{{- end }}
{{- range $name, $value := .values.settings }}
- {name: LATENTMILL_{{ upper $name }}, value: {{ include "latentmill.text" $value | quote }}}
{{- end }}
{{- with .values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "latentmill.volumeMounts" -}}
- {name: work, mountPath: /var/lib/latentmill}
- {name: tmp, mountPath: /tmp}
- {name: secrets, mountPath: /etc/latentmill/secrets, readOnly: true}
{{- if and .root.Values.tenants (ne .part "scheduler") }}
- {name: tenants, mountPath: /etc/latentmill/tenants, readOnly: true}
{{- end }}
{{- with .values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "latentmill.volumes" -}}
- name: work
  emptyDir: {sizeLimit: {{ .root.Values.cacheSize }}}
- name: tmp
  emptyDir: {}
- name: secrets
  secret:
    secretName: {{ default .root.Values.secrets.existingSecret .values.existingSecret }}
    defaultMode: 0440
    items:
      {{- range $name, $key := include "latentmill.secretKeys" . | fromYaml }}
      {{- if $key }}
      - {key: {{ $key | quote }}, path: {{ $name }}}
      {{- end }}
      {{- end }}
{{- if and .root.Values.tenants (ne .part "scheduler") }}
- name: tenants
  configMap: {name: {{ include "latentmill.fullname" .root }}-tenants}
{{- end }}
{{- with .values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The heartbeat file of worker and scheduler: it needs neither Redis nor the store, so that none is restarted for them. */}}
{{- define "latentmill.heartbeatProbes" -}}
startupProbe:
  exec: {command: [latentmill, health]}
  periodSeconds: 10
  timeoutSeconds: 20
  failureThreshold: 30
livenessProbe:
  exec: {command: [latentmill, health]}
  periodSeconds: 30
  timeoutSeconds: 20
  failureThreshold: 3
{{- end -}}
