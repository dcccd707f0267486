{{/* An entry of `buffers` over the defaults, with what is needed to name its objects. */}}
{{- define "iiot.entries" -}}
{{- $entries := list -}}
{{- range $name, $given := .Values.buffers -}}
{{- $entry := mergeOverwrite (deepCopy $.Values.bufferDefaults) (deepCopy (default dict $given)) -}}
{{- $_ := set $entry "name" $name -}}
{{- $_ := set $entry "base" (printf "%s-%s" $.Release.Name $name) -}}
{{- if not (or $entry.plant $entry.plantConfigMap) -}}
{{- fail (printf "buffers.%s has no plant file; give one with --set-file buffers.%s.plant=plant.yaml, or name a ConfigMap in plantConfigMap" $name $name) -}}
{{- end -}}
{{- if and $entry.ui.ingress.enabled (not $entry.ui.secret) -}}
{{- fail (printf "buffers.%s: an Ingress needs ui.secret; the Dagster UI has no log-in of its own" $name) -}}
{{- end -}}
{{- $entries = append $entries $entry -}}
{{- end -}}
{{- toJson $entries -}}
{{- end -}}

{{/* Labels of an object: (dict "root" $ "entry" $entry "component" "buffer"). */}}
{{- define "iiot.labels" -}}
{{ include "iiot.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "iiot.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: {{ .entry.base }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "iiot.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What every pod is told beside its containers. */}}
{{- define "iiot.pod" -}}
automountServiceAccountToken: false
# services of the namespace would become variables that begin like ours
enableServiceLinks: false
# signals and orphans are the pause container's, as they are the init process's of compose
shareProcessNamespace: true
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:{{ toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:{{ toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The node of the buffer: its volume is there, and SQLite's shared memory. */}}
{{- define "iiot.beside-the-buffer" -}}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:{{ include "iiot.selector" (dict "root" .root "entry" .entry "component" "buffer") | nindent 12 }}
{{- end -}}

{{/* What every container is told beside its command: (dict "root" $ "name" "pool"). */}}
{{- define "iiot.hardened" -}}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
resources:{{ index .root.Values.resources .name | toYaml | nindent 2 }}
{{- end -}}

{{- define "iiot.environ" -}}
- {name: IIOT_HOME, value: /var/lib/iiot}
- {name: IIOT_PLANT, value: /etc/iiot/plant.yaml}
{{- with .entry.database }}
{{- if .secret }}
- {name: IIOT_DATABASE_URL_FILE, value: /run/secrets/database_url}
{{- end }}
{{- end }}
{{- with .entry.influxdb }}
{{- if .url }}
- {name: INFLUX_URL, value: {{ .url | quote }}}
- {name: INFLUX_ORG, value: {{ .org | quote }}}
- {name: INFLUX_BUCKET, value: {{ .bucket | quote }}}
{{- if .secret }}
- {name: INFLUX_TOKEN_FILE, value: /run/secrets/influx_token}
{{- end }}
{{- end }}
{{- end }}
{{- with .entry.postgresql }}
{{- if .secret }}
- {name: IIOT_PG_SINK_URL_FILE, value: /run/secrets/pg_sink_url}
- {name: IIOT_PG_SINK_SCHEMA, value: {{ .schema | quote }}}
{{- end }}
{{- end }}
- {name: DAGSTER_UI_URL, value: {{ .entry.ui.url | quote }}}
{{- with .entry.ui.grafanaUrl }}
- {name: GRAFANA_URL, value: {{ . | quote }}}
{{- end }}
{{- end -}}

{{/* Mounts of the platform's containers. */}}
{{- define "iiot.mounts" -}}
- {name: home, mountPath: /var/lib/iiot}
# the folder and not the file: a changed ConfigMap is seen
- {name: plant, mountPath: /etc/iiot, readOnly: true}
- {name: secrets, mountPath: /run/secrets, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "iiot.plant-volume" -}}
- name: plant
  configMap: {name: {{ .entry.plantConfigMap | default (printf "%s-plant" .entry.base) }}}
{{- end -}}

{{/* Files in /run/secrets; `all`: of the databases, too. */}}
{{- define "iiot.secrets-volume" -}}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- with .entry.plantSecret }}
      - secret: {name: {{ . }}}
      {{- end }}
      {{- if .all }}
      {{- with .entry.database }}
      {{- if .secret }}
      - secret:
          name: {{ .secret }}
          items: [{key: {{ .key }}, path: database_url}]
      {{- end }}
      {{- end }}
      {{- with .entry.influxdb }}
      {{- if and .url .secret }}
      - secret:
          name: {{ .secret }}
          items: [{key: {{ .key }}, path: influx_token}]
      {{- end }}
      {{- end }}
      {{- with .entry.postgresql }}
      {{- if .secret }}
      - secret:
          name: {{ .secret }}
          items: [{key: {{ .key }}, path: pg_sink_url}]
      {{- end }}
      {{- end }}
      {{- end }}
      # a projection must not be empty
      - downwardAPI:
          items: [{path: pod, fieldRef: {fieldPath: metadata.name}}]
{{- end -}}

{{/* Volumes of the pods that work on a buffer's home. */}}
{{- define "iiot.volumes" -}}
volumes:
  - name: home
    persistentVolumeClaim: {claimName: home-{{ .entry.base }}-buffer-0}
  {{- include "iiot.plant-volume" . | nindent 2 }}
  {{- include "iiot.secrets-volume" (dict "entry" .entry "all" true) | nindent 2 }}
  - name: tmp
    emptyDir: {sizeLimit: 1Gi}
{{- end -}}

{{/*
Probes of a container: `words` after `python -m iiot_platform.probe`. Alive is asked less eagerly than
ready: to start a process anew mends little that it does not mend itself.
*/}}
{{- define "iiot.probes" -}}
{{- $alive := dict "command" (concat (list "python" "-m" "iiot_platform.probe") .words) -}}
{{- $ready := dict "command" (concat (list "python" "-m" "iiot_platform.probe") (default .words .ready)) -}}
startupProbe: {exec: {{ toJson $alive }}, periodSeconds: 5, timeoutSeconds: 15, failureThreshold: {{ .patience | default 60 }}}
{{- if not .keep }}
livenessProbe: {exec: {{ toJson $alive }}, periodSeconds: 30, timeoutSeconds: 15, failureThreshold: {{ .failures | default 4 }}}
{{- end }}
readinessProbe: {exec: {{ toJson $ready }}, periodSeconds: 20, timeoutSeconds: 15, failureThreshold: 3}
{{- end -}}

{{- define "iiot.dns" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end -}}
