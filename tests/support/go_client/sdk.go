package main

import (
	"context"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/credentials"
)

func sdk(ctx context.Context, o options) error {
	var once sync.Once
	var failed error
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { once.Do(func() { failed = err }) }))
	exporter, err := o.exporter(ctx)
	if err != nil {
		return err
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter, trace.WithMaxQueueSize(o.spans), trace.WithMaxExportBatchSize(200)))
	tracer := provider.Tracer("go_client")
	for number := range o.spans {
		_, span := tracer.Start(ctx, "GET /")
		span.SetAttributes(attribute.Int("number", number))
		span.End()
		fmt.Println(span.SpanContext().SpanID())
	}
	if err := provider.Shutdown(ctx); err != nil {
		return err
	}
	return failed
}

func (o options) exporter(ctx context.Context) (*otlptrace.Exporter, error) {
	config, err := o.tlsConfig()
	if err != nil {
		return nil, err
	}
	headers := map[string]string{}
	if o.token != "" {
		headers["authorization"] = "Bearer " + o.token
	}
	if o.protocol == "http" {
		settings := []otlptracehttp.Option{otlptracehttp.WithEndpoint(o.http), otlptracehttp.WithHeaders(headers)}
		if config == nil {
			settings = append(settings, otlptracehttp.WithInsecure())
		} else {
			settings = append(settings, otlptracehttp.WithTLSClientConfig(config))
		}
		if o.gzip {
			settings = append(settings, otlptracehttp.WithCompression(otlptracehttp.GzipCompression))
		}
		return otlptracehttp.New(ctx, settings...)
	}
	settings := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(o.grpc), otlptracegrpc.WithHeaders(headers)}
	if config == nil {
		settings = append(settings, otlptracegrpc.WithInsecure())
	} else {
		settings = append(settings, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(config)))
	}
	if o.gzip {
		settings = append(settings, otlptracegrpc.WithCompressor("gzip"))
	}
	return otlptracegrpc.New(ctx, settings...)
}
