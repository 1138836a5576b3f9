package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
)

const spansPerRequest = 3

// stream prints "acknowledged N" and "failed N" for requests of the spans N, N+1, N+2, and "repeated N" each time it sends one again.
func stream(ctx context.Context, o options) error {
	connection, err := o.dial()
	if err != nil {
		return err
	}
	defer connection.Close()
	stopped := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(stopped)
	}()
	var next atomic.Int64
	next.Store(int64(o.first))
	var senders sync.WaitGroup
	for range o.senders {
		senders.Go(func() {
			for {
				select {
				case <-stopped:
					return
				default:
				}
				first := int(next.Add(spansPerRequest) - spansPerRequest)
				if err := settle(o.authorized(ctx), o, connection, first); err != nil {
					fail(err)
				}
			}
		})
	}
	senders.Wait()
	return nil
}

// settle sends a request until it is acknowledged or failed for good, as OTLP's specification has it.
func settle(ctx context.Context, o options, connection *grpc.ClientConn, first int) error {
	traces := collector.NewTraceServiceClient(connection)
	var settings []grpc.CallOption
	if o.gzip {
		settings = append(settings, grpc.UseCompressor(gzip.Name))
	}
	body := request(first, spansPerRequest, 100)
	for until := time.Now().Add(longest); time.Now().Before(until); fmt.Println("repeated", first) {
		call, cancel := context.WithTimeout(ctx, longest)
		_, err := traces.Export(call, body, settings...)
		cancel()
		delay, again := repeat(err)
		switch {
		case err == nil:
			fmt.Println("acknowledged", first)
			return nil
		case status.Code(err) == codes.Internal:
			fmt.Println("failed", first)
			return nil
		case !again:
			return fmt.Errorf("request %d: %w", first, err)
		}
		time.Sleep(delay)
	}
	return fmt.Errorf("request %d was not settled in %s", first, longest)
}

// What OTLP's specification says may be sent again (a receiver that stops ends calls that it has not looked at as cancelled).
var repeatable = []codes.Code{
	codes.Canceled, codes.DeadlineExceeded, codes.Aborted, codes.OutOfRange, codes.Unavailable, codes.DataLoss,
}

// repeat says whether a request that ended in err may be sent again, and when.
func repeat(err error) (time.Duration, bool) {
	said := status.Convert(err)
	for _, detail := range said.Details() {
		if info, is := detail.(*errdetails.RetryInfo); is {
			return info.GetRetryDelay().AsDuration(), true
		}
	}
	return 50 * time.Millisecond, slices.Contains(repeatable, said.Code())
}
