// Clients of OTLP as Go programs have them: the OpenTelemetry SDK's exporters, and plain grpc-go.
//
//	go_client sdk     sends -spans spans through the SDK's exporter of -protocol; prints their ids
//	go_client calls   makes one call of each kind; prints name and status of each
//	go_client noise   sends a trace of -service with a text that is not UTF-8
//	go_client stream  sends requests, each until it is acknowledged or failed for good, until standard input ends; prints their ids
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

type options struct {
	grpc, http, protocol  string
	ca, cert, key, token  string
	gzip, raw             bool
	service               string
	spans, senders, first int
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("say sdk, calls, noise or stream"))
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.grpc, "grpc", "127.0.0.1:4317", "HOST:PORT of OTLP/gRPC")
	flags.StringVar(&o.http, "http", "127.0.0.1:4318", "HOST:PORT of OTLP/HTTP")
	flags.StringVar(&o.protocol, "protocol", "grpc", "grpc or http")
	flags.StringVar(&o.ca, "ca", "", "file of the CA of the receiver's certificate; empty: plain text")
	flags.StringVar(&o.cert, "cert", "", "file of this client's certificate")
	flags.StringVar(&o.key, "key", "", "file of its key")
	flags.StringVar(&o.token, "token", "", "bearer token")
	flags.BoolVar(&o.gzip, "gzip", false, "compress requests")
	flags.BoolVar(&o.raw, "raw", false, "put the byte into what the SDK has written")
	flags.StringVar(&o.service, "service", "go_client", "service.name of the resource")
	flags.IntVar(&o.spans, "spans", 1000, "how many spans the SDK makes")
	flags.IntVar(&o.senders, "senders", 4, "how many requests are under way at once")
	flags.IntVar(&o.first, "first", 1, "number of the first span")
	_ = flags.Parse(os.Args[2:])
	run, known := map[string]func(context.Context, options) error{"sdk": sdk, "calls": calls, "noise": noise, "stream": stream}[os.Args[1]]
	if !known {
		fail(fmt.Errorf("no command %q", os.Args[1]))
	}
	if err := run(context.Background(), o); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// tlsConfig is nil where plain text is spoken.
func (o options) tlsConfig() (*tls.Config, error) {
	if o.ca == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(o.ca)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate", o.ca)
	}
	if o.cert != "" {
		pair, err := tls.LoadX509KeyPair(o.cert, o.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (o options) dial() (*grpc.ClientConn, error) {
	config, err := o.tlsConfig()
	if err != nil {
		return nil, err
	}
	transport := insecure.NewCredentials()
	if config != nil {
		transport = credentials.NewTLS(config)
	}
	soon := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}
	return grpc.NewClient(
		o.grpc,
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultCallOptions(grpc.MaxCallSendMsgSize(1<<30)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: soon, MinConnectTimeout: longest}),
	)
}

// authorized is ctx with the token, where there is one.
func (o options) authorized(ctx context.Context) context.Context {
	if o.token == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+o.token)
}
