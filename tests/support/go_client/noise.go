package main

import (
	"bytes"
	"context"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracing "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// noise sends one trace of two spans of -service through the SDK; the attribute noise has a byte that is not UTF-8.
// Go's protobuf refuses to write such a text, so that the SDK's own exporters never send one: with -raw the byte is
// put in after the SDK's spans were written.
func noise(ctx context.Context, o options) error {
	exporter, text := &otlptrace.Exporter{}, "caf\xe9!"
	if o.raw {
		connection, err := o.dial()
		if err != nil {
			return err
		}
		defer connection.Close()
		exporter, text = otlptrace.NewUnstarted(rawClient{connection, text}), placeholder
	} else {
		var err error
		if exporter, err = o.exporter(ctx); err != nil {
			return err
		}
	}
	return shop(ctx, exporter, o.service, text)
}

func shop(ctx context.Context, exporter *otlptrace.Exporter, service, text string) error {
	failures := &watched{SpanExporter: exporter}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(failures),
		sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", service))),
	)
	tracer := provider.Tracer("tests")
	within, checkout := tracer.Start(ctx, "checkout", trace.WithSpanKind(trace.SpanKindServer))
	checkout.SetAttributes(attribute.Int("http.response.status_code", 500))
	checkout.SetStatus(codes.Error, "no stock")
	checkout.AddEvent("reserved")
	_, call := tracer.Start(within, "SELECT stock", trace.WithSpanKind(trace.SpanKindClient))
	call.SetAttributes(attribute.String("db.system.name", "postgresql"), attribute.String("noise", text))
	call.End()
	checkout.End()
	if err := provider.Shutdown(ctx); err != nil {
		return err
	}
	return failures.err
}

type watched struct {
	sdktrace.SpanExporter
	err error
}

func (w *watched) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	w.err = w.SpanExporter.ExportSpans(ctx, spans)
	return w.err
}

const (
	placeholder  = "cafe!"
	exportMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
)

type rawClient struct {
	connection *grpc.ClientConn
	text       string
}

func (c rawClient) Start(context.Context) error { return nil }
func (c rawClient) Stop(context.Context) error  { return nil }

func (c rawClient) UploadTraces(ctx context.Context, spans []*tracing.ResourceSpans) error {
	body, err := proto.Marshal(&collector.ExportTraceServiceRequest{ResourceSpans: spans})
	if err != nil {
		return err
	}
	body = bytes.ReplaceAll(body, []byte(placeholder), []byte(c.text))
	var answer []byte
	return c.connection.Invoke(ctx, exportMethod, &body, &answer, grpc.ForceCodec(rawCodec{}))
}

type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(value any) ([]byte, error) {
	if body, is := value.(*[]byte); is {
		return *body, nil
	}
	return nil, fmt.Errorf("%T is no body", value)
}

func (rawCodec) Unmarshal(body []byte, value any) error {
	*value.(*[]byte) = bytes.Clone(body)
	return nil
}
