package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aigroup/ipc-gateway/trace"
	"github.com/aigroup/ipc-gateway/trace/otlp"
)

// traceStopMax bounds the export of the last spans when the gateway ends.
const traceStopMax = 3 * time.Second

// Variables of OpenTelemetry that say whether there are traces; package otlp reads those that say where they go.
const (
	otelSampler     = "OTEL_TRACES_SAMPLER"
	otelSamplerArg  = "OTEL_TRACES_SAMPLER_ARG"
	otelDisabled    = "OTEL_SDK_DISABLED"
	otelExporter    = "OTEL_TRACES_EXPORTER"
	otelEndpoint    = "OTEL_EXPORTER_OTLP_ENDPOINT"
	otelTraceTarget = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	otelProtocol    = "OTEL_EXPORTER_OTLP_PROTOCOL"
	otelTraceProto  = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
)

// tracing is what the service has for the spans of sampled requests.
type tracing struct {
	sink     trace.Sink
	exporter *otlp.Exporter // nil: there was nothing to export yet
}

// forbidsTracing reports whether the environment says that there are no traces, whatever the settings say.
func (a *app) forbidsTracing() bool {
	_, disabled, _ := a.env(otelDisabled, "")
	_, exporter, _ := a.env(otelExporter, "")
	off, _ := strconv.ParseBool(disabled)
	return off || exporter == "none"
}

// tracingProblems returns what the environment wants of tracing and the gateway does not have: to go on without would lose spans silently.
func (a *app) tracingProblems() (problems []string) {
	if a.forbidsTracing() {
		return nil
	}
	if name, exporter, given := a.env(otelExporter); given && exporter != "otlp" {
		problems = append(problems, fmt.Sprintf("variable %s: %q is an exporter that the gateway does not have: want otlp or none", name, exporter))
	}
	if name, protocol, given := a.env(otelTraceProto, otelProtocol); given && protocol != "http/protobuf" {
		problems = append(problems, fmt.Sprintf("variable %s: %q is a protocol that the gateway does not have: want http/protobuf", name, protocol))
	}
	return problems
}

// exportsTraces reports whether the environment says where spans go.
func (a *app) exportsTraces() bool {
	_, _, given := a.env(otelEndpoint, otelTraceTarget)
	_, exporter, _ := a.env(otelExporter, "")
	return given || exporter == "otlp"
}

// samplerShare is the share of requests that a sampler of the environment picks, as the text of a setting.
func (a *app) samplerShare(sampler string) (string, error) {
	switch sampler {
	case "always_on", "parentbased_always_on":
		return "1", nil
	case "always_off", "parentbased_always_off":
		return "0", nil
	case "traceidratio", "parentbased_traceidratio":
		if _, share, given := a.env(otelSamplerArg, ""); given {
			return share, nil
		}
		return "1", nil
	}
	return "", fmt.Errorf("%q is a sampler that the gateway does not have: want always_on, always_off, traceidratio, or parentbased_ and one of these", sampler)
}

// use makes o trace what it wants to have traced, and exports that.
func (t *tracing) use(a *app, o *options) error {
	if a.forbidsTracing() {
		return nil
	}
	c := &o.engine
	c.Tracer, c.TraceClients = &t.sink, a.exportsTraces()
	if t.exporter != nil || !c.TraceClients && c.TraceSample == 0 {
		return nil
	}
	exporter, err := otlp.Start(&t.sink, buildVersion(), c.Logger)
	if err != nil {
		return fmt.Errorf("spans cannot be exported: %w", err)
	}
	t.exporter = exporter
	c.Logger.Info("sampled requests are traced", "sample", c.TraceSample, "traces_of_clients", true)
	return nil
}

// stop exports the last spans, as far as that is done in time.
func (t *tracing) stop() error {
	if t.exporter == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), traceStopMax)
	defer cancel()
	return t.exporter.Stop(ctx)
}

// shareValue fills a share of 0 to 1.
func shareValue(p *float64) value {
	return fieldValue(p, func(text string) (float64, error) {
		share, err := strconv.ParseFloat(text, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return 0, fmt.Errorf("%q is not a share: want a number of 0 to 1, as 0.01", text)
		}
		return share, nil
	}, func(share float64) string { return strconv.FormatFloat(share, 'g', -1, 64) })
}
