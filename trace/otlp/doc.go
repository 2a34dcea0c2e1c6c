// Package otlp exports the spans of package trace by OTLP over HTTP, with the exporter of the OpenTelemetry SDK, which the
// variables OTEL_EXPORTER_OTLP_..., OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES tell where to and how.
package otlp
