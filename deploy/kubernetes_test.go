package deploy

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/aigroup/ipc-gateway/internal/testtool"
)

// The versions whose schemas the manifests are checked against; only modules are fetched, through the Go module proxy.
const (
	kubernetesModule = "k8s.io/kubernetes@v1.34.1"
	operatorModule   = "github.com/prometheus-operator/prometheus-operator@v0.85.0"
	kubeconform      = "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0"
)

// manifest is what matters here of a Kubernetes object.
type manifest struct {
	Kind     string
	Metadata struct {
		Name   string
		Labels map[string]string
	}
	Data map[string]string
	Spec struct {
		MinAvailable, MaxUnavailable any
		Selector                     any
		Endpoints                    []struct{ Port, Path string }
		Ports                        []struct{ Name, TargetPort string }
		Template                     struct {
			Metadata struct{ Labels map[string]string }
			Spec     podSpec
		}
	}
}

type podSpec struct {
	TerminationGracePeriodSeconds int
	AutomountServiceAccountToken  *bool
	SecurityContext               struct {
		RunAsNonRoot   bool
		SeccompProfile struct{ Type string }
	}
	InitContainers, Containers []container
	Volumes                    []struct {
		HostPath *struct{ Path, Type string }
		EmptyDir *struct{ Medium string }
	}
}

type container struct {
	Name, Image, RestartPolicy    string
	Args                          []string
	Ports                         []struct{ ContainerPort int }
	LivenessProbe, ReadinessProbe kubeProbe
	Resources                     struct{ Requests, Limits map[string]string }
	SecurityContext               struct {
		AllowPrivilegeEscalation *bool
		ReadOnlyRootFilesystem   bool
		Capabilities             struct{ Drop []string }
	}
}

type kubeProbe struct {
	HTTPGet                            struct{ Path, Port string }
	InitialDelaySeconds, PeriodSeconds int
}

// manifests returns the objects of a file.
func manifests(t *testing.T, path string) (list []manifest) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(readFile(t, path)))
	for {
		var object map[string]any
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return list
		}
		// By way of JSON, whose names match fields in any case.
		var m manifest
		text, jsonErr := json.Marshal(object)
		if err = errors.Join(err, jsonErr); err == nil {
			err = json.Unmarshal(text, &m)
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		list = append(list, m)
	}
}

func find(t *testing.T, list []manifest, kind string) *manifest {
	t.Helper()
	for i := range list {
		if list[i].Kind == kind {
			return &list[i]
		}
	}
	t.Fatalf("there is no %s", kind)
	return nil
}

// gatewayOf returns the container of the gateway.
func gatewayOf(t *testing.T, p *podSpec) *container {
	t.Helper()
	for _, list := range [][]container{p.InitContainers, p.Containers} {
		for i := range list {
			if list[i].Name == "gateway" {
				return &list[i]
			}
		}
	}
	t.Fatal("there is no container named gateway")
	return nil
}

// Goal: what users of the predecessor were promised about probes and resources is so in both variants, and neither may do more than
// it has to.
func TestKubernetesKeepsWhatWasPromised(t *testing.T) {
	for file, kind := range map[string]string{"daemonset.yaml": "DaemonSet", "sidecar.yaml": "Deployment"} {
		list := manifests(t, "kubernetes/"+file)
		pod := &find(t, list, kind).Spec.Template.Spec
		g := gatewayOf(t, pod)
		for _, c := range []struct {
			what      string
			got, want any
		}{
			{"liveness", []any{g.LivenessProbe.HTTPGet.Path, g.LivenessProbe.HTTPGet.Port, g.LivenessProbe.InitialDelaySeconds, g.LivenessProbe.PeriodSeconds}, []any{"/health", "http", 10, 30}},
			{"readiness", []any{g.ReadinessProbe.HTTPGet.Path, g.ReadinessProbe.HTTPGet.Port, g.ReadinessProbe.InitialDelaySeconds, g.ReadinessProbe.PeriodSeconds}, []any{"/ready", "http", 5, 10}},
			{"requests", g.Resources.Requests, map[string]string{"memory": "128Mi", "cpu": "100m"}},
			{"limits", g.Resources.Limits, map[string]string{"memory": "512Mi", "cpu": "500m"}},
			{"port", len(g.Ports) == 1 && g.Ports[0].ContainerPort == 8080, true},
			{"label", find(t, list, kind).Spec.Template.Metadata.Labels["app"], "ipc-gateway"},
			{"not root", pod.SecurityContext.RunAsNonRoot, true},
			{"seccomp", pod.SecurityContext.SeccompProfile.Type, "RuntimeDefault"},
			{"no token", pod.AutomountServiceAccountToken != nil && !*pod.AutomountServiceAccountToken, true},
			{"budget", find(t, list, "PodDisruptionBudget").Spec.MinAvailable != nil || find(t, list, "PodDisruptionBudget").Spec.MaxUnavailable != nil, true},
		} {
			if !reflect.DeepEqual(c.got, c.want) {
				t.Errorf("%s: %s: %v, want %v", file, c.what, c.got, c.want)
			}
		}
		for _, c := range append(pod.InitContainers, pod.Containers...) {
			s := &c.SecurityContext
			if !s.ReadOnlyRootFilesystem || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !reflect.DeepEqual(s.Capabilities.Drop, []string{"ALL"}) {
				t.Errorf("%s: the container %s may do more than it has to", file, c.Name)
			}
		}
	}
	pod := find(t, manifests(t, "kubernetes/daemonset.yaml"), "DaemonSet").Spec.Template.Spec
	if v := pod.Volumes[0].HostPath; v == nil || v.Path != "/run/ipc-gateway" {
		t.Errorf("the socket of the DaemonSet is not in a folder of the host: %+v", v)
	}
	monitor := manifests(t, "kubernetes/servicemonitor.yaml")
	if e, port := find(t, monitor, "ServiceMonitor").Spec.Endpoints, find(t, monitor, "Service").Spec.Ports; e[0].Port != port[0].Name || port[0].TargetPort != "http" || e[0].Path != "/metrics" {
		t.Errorf("the monitor asks %+v of %+v", e, port)
	}
}

// selects reports whether the selector matches the labels; those of a Service are named without matchLabels.
func (m *manifest) selects(t *testing.T, labels map[string]string) bool {
	t.Helper()
	selector, ok := m.Spec.Selector.(map[string]any)
	if !ok {
		t.Fatalf("%s %s has no selector", m.Kind, m.Metadata.Name)
	}
	if inner, ok := selector["matchLabels"].(map[string]any); ok {
		selector = inner
	}
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return len(selector) > 0
}

// Goal: with all files applied, each pod belongs to one workload and one budget, for with two budgets Kubernetes refuses every
// eviction; and pods of both variants are scraped. Method: every selector against every template, over all files.
func TestKubernetesSelectorsTellTheVariantsApart(t *testing.T) {
	files, err := filepath.Glob("kubernetes/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%v, %v", files, err)
	}
	var all []manifest
	for _, file := range files {
		all = append(all, manifests(t, file)...)
	}
	templates := 0
	for i := range all {
		labels := all[i].Spec.Template.Metadata.Labels
		if len(labels) == 0 {
			continue
		}
		templates++
		selected := map[string][]string{}
		for j := range all {
			switch kind := all[j].Kind; kind {
			case "DaemonSet", "Deployment", "PodDisruptionBudget", "Service":
				if all[j].selects(t, labels) {
					if kind == "DaemonSet" || kind == "Deployment" {
						kind = "workload"
					}
					selected[kind] = append(selected[kind], all[j].Metadata.Name)
				}
			}
		}
		own := []string{all[i].Metadata.Name}
		if want := map[string][]string{"workload": own, "PodDisruptionBudget": own, "Service": {"ipc-gateway"}}; !reflect.DeepEqual(selected, want) {
			t.Errorf("the pods of %s are selected by %v, want %v", all[i].Metadata.Name, selected, want)
		}
	}
	if templates != 2 {
		t.Errorf("%d workloads, want both variants", templates)
	}
	if !find(t, all, "ServiceMonitor").selects(t, find(t, all, "Service").Metadata.Labels) {
		t.Error("the monitor does not find the service")
	}
}

// Goal: the settings in the ConfigMaps are right, and the pod is given the time that they take to drain.
func TestKubernetesSettingsAreRight(t *testing.T) {
	program := build(t, "ipc-gateway")
	for file, kind := range map[string]string{"daemonset.yaml": "DaemonSet", "sidecar.yaml": "Deployment"} {
		list := manifests(t, "kubernetes/"+file)
		text := find(t, list, "ConfigMap").Data["ipc-gateway.yaml"]
		checkSettings(t, program, text)
		var settings struct {
			DrainTimeout string `yaml:"drain_timeout"`
			Socket       string
			ProbeAddr    string `yaml:"probe_addr"`
		}
		if err := yaml.Unmarshal([]byte(text), &settings); err != nil {
			t.Fatal(err)
		}
		drain, err := time.ParseDuration(settings.DrainTimeout)
		pod := &find(t, list, kind).Spec.Template.Spec
		if grace := time.Duration(pod.TerminationGracePeriodSeconds) * time.Second; err != nil || grace != drain+10*time.Second {
			t.Errorf("%s: the pod is killed after %v, and may drain for %v (%v): want ten seconds more", file, grace, drain, err)
		}
		if settings.Socket != "/run/ipc-gateway/gateway.sock" || settings.ProbeAddr != "0.0.0.0:8080" {
			t.Errorf("%s: %+v", file, settings)
		}
	}
}

// checkSettings asks the program whether it would start with a file that holds text: its command health names the problems.
func checkSettings(t *testing.T, program, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ipc-gateway.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	output, err := exec.CommandContext(t.Context(), program, "health", "--config", path, "--probe-addr", "127.0.0.1:1").CombinedOutput()
	if err == nil || strings.Contains(string(output), "problems") || !strings.Contains(string(output), "does not answer") {
		t.Errorf("%v: %s", err, output)
	}
}

// Goal: the manifests are what the API server of a real Kubernetes takes, strictly: no unknown field, no wrong type.
func TestKubernetesSchemas(t *testing.T) {
	if !*live {
		t.Skip("fetches Kubernetes' own definitions: make check-deploy runs it")
	}
	schemas := t.TempDir()
	kubernetes, operator := moduleDir(t, kubernetesModule), moduleDir(t, operatorModule)
	writeSchemas(t, kubernetes+"/api/openapi-spec/swagger.json", schemas)
	writeMonitorSchema(t, operator+"/example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml", schemas)
	files, err := filepath.Glob("kubernetes/*.yaml")
	if err != nil || len(files) < 4 {
		t.Fatalf("%v, %v", files, err)
	}
	check := func(files ...string) (string, error) {
		args := append([]string{"run", kubeconform, "-strict", "-verbose", "-summary", "-schema-location", schemas + "/{{.ResourceKind}}.json"}, files...)
		output, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
		return string(output), err
	}
	output, err := check(files...)
	if err != nil || !strings.Contains(output, "Skipped: 0") {
		t.Errorf("%v\n%s", err, output)
	}
	t.Log(output[strings.LastIndex(output, "Summary"):])
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	text := strings.Replace(readFile(t, "kubernetes/daemonset.yaml"), "initialDelaySeconds: 10", "initialDelaySecond: 10", 1)
	if err := os.WriteFile(wrong, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if output, err := check(wrong); err == nil {
		t.Errorf("a misspelt field is accepted: %s", output)
	}
}

// moduleDir fetches a module, and skips the test if that cannot be done.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module)
	cmd.Dir = os.TempDir() // it is none of ours
	output, err := cmd.Output()
	var downloaded struct{ Dir string }
	if err == nil {
		err = json.Unmarshal(output, &downloaded)
	}
	if err != nil {
		testtool.Missing(t, "%s cannot be fetched, the schemas are not checked: %v", module, err)
	}
	return downloaded.Dir
}

// writeSchemas makes a JSON schema for each kind of ours out of Kubernetes' OpenAPI definitions.
func writeSchemas(t *testing.T, swagger, dir string) {
	t.Helper()
	var spec struct {
		Definitions map[string]map[string]any
	}
	if err := json.Unmarshal([]byte(readFile(t, swagger)), &spec); err != nil {
		t.Fatal(err)
	}
	for _, definition := range spec.Definitions {
		if definition["format"] == "int-or-string" {
			delete(definition, "type")
			definition["oneOf"] = []any{map[string]any{"type": "string"}, map[string]any{"type": "integer"}}
		}
		if _, ok := definition["properties"]; ok {
			definition["additionalProperties"] = false
		}
	}
	for kind, name := range map[string]string{
		"configmap": "io.k8s.api.core.v1.ConfigMap", "daemonset": "io.k8s.api.apps.v1.DaemonSet", "deployment": "io.k8s.api.apps.v1.Deployment",
		"pod": "io.k8s.api.core.v1.Pod", "poddisruptionbudget": "io.k8s.api.policy.v1.PodDisruptionBudget", "service": "io.k8s.api.core.v1.Service",
	} {
		writeJSON(t, filepath.Join(dir, kind+".json"), map[string]any{"$ref": "#/definitions/" + name, "definitions": spec.Definitions})
	}
}

// writeMonitorSchema takes the schema out of the definition of a custom resource.
func writeMonitorSchema(t *testing.T, path, dir string) {
	t.Helper()
	var resource struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema map[string]any `yaml:"openAPIV3Schema"`
				}
			}
		}
	}
	readYAML(t, path, &resource)
	schema := resource.Spec.Versions[0].Schema.OpenAPIV3Schema
	forbidOthers(schema)
	writeJSON(t, filepath.Join(dir, "servicemonitor.json"), schema)
}

// forbidOthers makes a schema strict: an object that lists its fields has no others.
func forbidOthers(schema map[string]any) {
	properties, ok := schema["properties"].(map[string]any)
	if ok && len(properties) > 0 {
		if _, open := schema["x-kubernetes-preserve-unknown-fields"]; !open {
			schema["additionalProperties"] = false
		}
	}
	for name, property := range properties {
		if p, ok := property.(map[string]any); ok && name != "metadata" {
			forbidOthers(p)
		}
	}
	if items, ok := schema["items"].(map[string]any); ok {
		forbidOthers(items)
	}
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
