package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	tracing "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const longest = 60 * time.Second

func calls(ctx context.Context, o options) error {
	connection, err := o.dial()
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	checks, traces := health.NewHealthClient(connection), collector.NewTraceServiceClient(connection)

	answer, err := checks.Check(ctx, &health.HealthCheckRequest{})
	report("health", err, answer.GetStatus())
	answer, err = checks.Check(ctx, &health.HealthCheckRequest{Service: collector.TraceService_ServiceDesc.ServiceName})
	report("health of a service", err, answer.GetStatus())
	_, err = checks.Check(ctx, &health.HealthCheckRequest{Service: "nobody"})
	report("health of nobody", err)
	watch, err := checks.Watch(ctx, &health.HealthCheckRequest{})
	if err == nil {
		answer, err = watch.Recv()
	}
	report("watch", err, answer.GetStatus())

	report("unknown method", connection.Invoke(ctx, "/nobody/Nothing", &health.HealthCheckRequest{}, &health.HealthCheckResponse{}))
	_, err = traces.Export(ctx, request(o.first, 1, 0))
	report("export without a token", err)
	ctx = o.authorized(ctx)
	_, err = traces.Export(ctx, request(o.first+1, 10, 0))
	report("export", err)
	_, err = traces.Export(ctx, request(o.first+11, 10, 0), grpc.UseCompressor(gzip.Name))
	report("gzip", err)
	_, err = traces.Export(ctx, request(o.first+21, 1000, 3000))
	report("3 MB", err)
	_, err = traces.Export(ctx, request(0, 1, 8<<20))
	report("8 MB", err)
	_, err = traces.Export(ctx, request(0, 1, 8<<20), grpc.UseCompressor(gzip.Name))
	report("8 MB, gzip", err)
	broken := request(o.first+1021, 2, 0)
	broken.ResourceSpans[0].ScopeSpans[0].Spans[1].TraceId = []byte("short")
	partial, err := traces.Export(ctx, broken)
	report("one bad id of two", err, partial.GetPartialSuccess().GetRejectedSpans())
	late, stop := context.WithTimeout(ctx, -time.Second)
	defer stop()
	_, err = traces.Export(late, request(0, 1, 0))
	report("too late", err)
	return nil
}

func report(name string, err error, more ...any) {
	fmt.Println(strings.TrimSpace(fmt.Sprintln(append([]any{name + ":", status.Code(err)}, more...)...)))
}

// request has spans with the ids first, first + 1, ..., a trace each.
func request(first, spans, padding int) *collector.ExportTraceServiceRequest {
	scope := &tracing.ScopeSpans{}
	for number := first; number < first+spans; number++ {
		id := make([]byte, 8)
		for place := range id {
			id[place] = byte(number >> (8 * (7 - place)))
		}
		text := &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.Repeat("x", padding)}}
		scope.Spans = append(scope.Spans, &tracing.Span{
			TraceId: append(append([]byte{}, id...), id...), SpanId: id, Name: "GET /",
			Attributes: []*common.KeyValue{{Key: "padding", Value: text}},
		})
	}
	return &collector.ExportTraceServiceRequest{ResourceSpans: []*tracing.ResourceSpans{{ScopeSpans: []*tracing.ScopeSpans{scope}}}}
}
