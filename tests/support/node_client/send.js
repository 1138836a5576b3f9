// node send.js SERVICE PROTOCOL ENDPOINT COMPRESSION: one trace of two spans through the SDK's exporter of PROTOCOL
// (grpc, http: protobuf, json). The text of `noise` has half a surrogate pair.
import { SpanKind, SpanStatusCode, context, trace } from '@opentelemetry/api';
import { OTLPTraceExporter as Grpc } from '@opentelemetry/exporter-trace-otlp-grpc';
import { OTLPTraceExporter as Json } from '@opentelemetry/exporter-trace-otlp-http';
import { OTLPTraceExporter as Protobuf } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base';

const [service, protocol, endpoint, compression] = process.argv.slice(2);
const exporter = {
  grpc: () => new Grpc({ url: `http://${endpoint}`, compression }),
  http: () => new Protobuf({ url: `http://${endpoint}/v1/traces`, compression }),
  json: () => new Json({ url: `http://${endpoint}/v1/traces`, compression }),
}[protocol]();
const failures = [];
const watched = {
  export: (spans, done) =>
    exporter.export(spans, (result) => {
      if (result.error) failures.push(result.error);
      done(result);
    }),
  shutdown: () => exporter.shutdown(),
};
const provider = new BasicTracerProvider({
  resource: resourceFromAttributes({ 'service.name': service }),
  spanProcessors: [new BatchSpanProcessor(watched)],
});
const tracer = provider.getTracer('tests');
const checkout = tracer.startSpan('checkout', { kind: SpanKind.SERVER });
checkout.setAttribute('http.response.status_code', 500);
checkout.setStatus({ code: SpanStatusCode.ERROR, message: 'no stock' });
checkout.addEvent('reserved');
const attributes = { 'db.system.name': 'postgresql', noise: 'caf\ud83d!' };
tracer.startSpan('SELECT stock', { kind: SpanKind.CLIENT, attributes }, trace.setSpan(context.active(), checkout)).end();
checkout.end();
await provider.shutdown();
if (failures.length) {
  console.error(failures);
  process.exit(1);
}
