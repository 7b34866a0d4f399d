{{/* The pod of a node's daemon; with "cleanup", one that undoes what the daemon did, once. */}}
{{- define "dsr.node.pod" -}}
{{- $cleanup := .cleanup -}}
{{- with .root -}}
serviceAccountName: {{ include "dsr.node.fullname" . }}
priorityClassName: {{ .Values.node.priorityClassName }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 0 }}
{{- end }}
hostNetwork: true
# It talks to the API server's address alone and must not depend on the cluster's DNS.
dnsPolicy: Default
terminationGracePeriodSeconds: {{ .Values.node.terminationGracePeriodSeconds }}
containers:
- name: {{ ternary "cleanup" "node" $cleanup }}
  image: {{ include "dsr.image" . }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [dsr-node]
  args:
  - --log-level={{ .Values.node.logLevel }}
  - --state-dir={{ .Values.node.stateDirectory }}
  {{- if $cleanup }}
  - --cleanup
  {{- end }}
  env:
  - name: NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  # One address of the node's: all addresses would include the VIPs.
  - name: DSR_LISTEN_ADDRESS
    valueFrom: {fieldRef: {fieldPath: status.hostIP}}
  - {name: DSR_LISTEN_PORT, value: {{ .Values.node.port | quote }}}
  {{- with .Values.node.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- if not $cleanup }}
  ports:
  - {name: http, containerPort: {{ .Values.node.port }}}
  startupProbe:
    httpGet: {path: /healthz, port: http}
    periodSeconds: 2
    failureThreshold: 30
  livenessProbe:
    httpGet: {path: /healthz, port: http}
    periodSeconds: 10
    timeoutSeconds: 5
  readinessProbe:
    httpGet: {path: /readyz, port: http}
    periodSeconds: 5
    timeoutSeconds: 5
  {{- end }}
  resources: {{- toYaml .Values.node.resources | nindent 4 }}
  securityContext:
    runAsUser: 0
    readOnlyRootFilesystem: true
    {{- if .Values.node.privileged }}
    privileged: true
    {{- else }}
    allowPrivilegeEscalation: false
    capabilities:
      drop: [ALL]
      add: [NET_ADMIN, NET_RAW, BPF, PERFMON]
    {{- end }}
  volumeMounts:
  - {name: state, mountPath: {{ .Values.node.stateDirectory }}}
  - name: bpffs
    mountPath: /sys/fs/bpf
    # A bpffs that the daemon mounts itself must outlive the pod, with all that is pinned in it.
    mountPropagation: {{ ternary "Bidirectional" "HostToContainer" .Values.node.privileged }}
  {{- if not .Values.node.privileged }}
  # /proc/sys is read-only in an unprivileged pod, and nothing can be mounted inside /proc.
  - {name: sysctls, mountPath: /host/proc/sys/net}
  {{- end }}
  - {name: tmp, mountPath: /tmp}
volumes:
- name: state
  hostPath: {path: {{ .Values.node.stateDirectory }}, type: DirectoryOrCreate}
- name: bpffs
  hostPath: {path: /sys/fs/bpf, type: Directory}
{{- if not .Values.node.privileged }}
- name: sysctls
  hostPath: {path: /proc/sys/net, type: Directory}
{{- end }}
- name: tmp
  emptyDir: {}
{{- if $cleanup }}
restartPolicy: OnFailure
activeDeadlineSeconds: {{ .Values.uninstall.timeoutSeconds }}
tolerations:
- operator: Exists
{{- else }}
{{- with .Values.node.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.node.tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .Values.node.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}
