package otlp

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/aigroup/ipc-gateway/trace"
)

const (
	// exportPause is how often the queues are looked at.
	exportPause = 200 * time.Millisecond
	// batchSpans is how many spans are exported together at most.
	batchSpans = 512
	// exportTimeMax bounds the export of one batch with all its retries.
	exportTimeMax = 10 * time.Second
	// complaintPause is the time between two messages about spans that could not be exported.
	complaintPause = time.Minute
)

// Exporter takes spans out of a sink, batch by batch, and sends them to the receiver. While that does not take them the queues
// fill up, and the loops drop spans: nobody waits for it.
type Exporter struct {
	sink   *trace.Sink
	log    *slog.Logger
	client *otlptrace.Exporter

	cancel   context.CancelFunc // ends an export that is going on
	stop     chan struct{}      // closed by Stop
	stopOnce sync.Once
	done     chan struct{} // closed when run has ended

	// Owned by run.
	convert    converter
	batch      []sdktrace.ReadOnlySpan
	complained time.Time
}

// Start starts to export what comes into sink. version is the gateway's. It does not wait for the receiver.
func Start(sink *trace.Sink, version string, log *slog.Logger) (*Exporter, error) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("OpenTelemetry", "problem", err) }))
	ctx, cancel := context.WithCancel(context.Background())
	// What the environment says comes last, and wins.
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "ipc-gateway"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithProcessPID(), resource.WithFromEnv())
	if err != nil {
		log.Warn("spans are exported without all that should be said about this process", "reason", err)
	}
	client, err := otlptracehttp.New(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	e := &Exporter{sink: sink, log: log, client: client, cancel: cancel, stop: make(chan struct{}), done: make(chan struct{}),
		convert: newConverter(about, version)}
	go e.run(ctx)
	return e, nil
}

// Stop exports what is in the queues, until ctx ends, and ends the exporter. The rest counts as lost. It may be called again.
func (e *Exporter) Stop(ctx context.Context) error {
	defer e.cancel()
	e.stopOnce.Do(func() { close(e.stop) })
	var err error
	select {
	case <-e.done:
	case <-ctx.Done():
		e.cancel()
		<-e.done
		err = ctx.Err()
	}
	return errors.Join(err, e.client.Shutdown(ctx))
}

func (e *Exporter) run(ctx context.Context) {
	defer close(e.done)
	ticker := time.NewTicker(exportPause)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			e.drain(ctx)
		case <-e.stop:
			e.drain(ctx)
			return
		}
	}
}

// drain exports what is in the queues. It ends even if the loops go on to fill them.
func (e *Exporter) drain(ctx context.Context) {
	for _, queue := range e.sink.Queues() {
		for more := true; more; {
			more = e.fill(queue)
			e.export(ctx)
		}
	}
}

// fill moves a batch out of queue, and reports whether it is a whole one.
func (e *Exporter) fill(queue *trace.Queue) (whole bool) {
	var span trace.Span
	e.batch = e.batch[:0]
	for len(e.batch) < batchSpans {
		if !queue.Pop(&span) {
			return false
		}
		e.batch = append(e.batch, e.convert.span(&span))
	}
	return true
}

func (e *Exporter) export(ctx context.Context) {
	if len(e.batch) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, exportTimeMax)
	defer cancel()
	err := e.client.ExportSpans(ctx, e.batch)
	if err == nil {
		return
	}
	e.sink.AddLost(len(e.batch))
	if now := time.Now(); now.Sub(e.complained) > complaintPause {
		e.complained = now
		e.log.Warn("spans could not be exported and are dropped", "spans", len(e.batch), "reason", err)
	}
}
