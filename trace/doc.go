// Package trace is what the data plane knows of tracing: the W3C headers traceparent and tracestate, the span of a sampled
// request, and the queue in which a loop leaves it for whoever exports it. It allocates nothing once a queue is made, and
// knows neither the engine nor OpenTelemetry; package trace/otlp exports.
package trace
