import io.opentelemetry.api.trace.Span;
import io.opentelemetry.api.trace.SpanKind;
import io.opentelemetry.api.trace.StatusCode;
import io.opentelemetry.api.trace.Tracer;
import io.opentelemetry.context.Scope;
import io.opentelemetry.exporter.otlp.http.trace.OtlpHttpSpanExporter;
import io.opentelemetry.exporter.otlp.trace.OtlpGrpcSpanExporter;
import io.opentelemetry.sdk.resources.Resource;
import io.opentelemetry.sdk.trace.SdkTracerProvider;
import io.opentelemetry.sdk.trace.export.BatchSpanProcessor;
import io.opentelemetry.sdk.trace.export.SpanExporter;
import io.opentelemetry.api.common.Attributes;
import java.util.concurrent.TimeUnit;

/**
 * {@code java -cp 'JARS/*' Send.java SERVICE PROTOCOL ENDPOINT COMPRESSION} sends one trace of two spans through the
 * exporter of PROTOCOL (grpc or http). The text of `noise` has half a surrogate pair.
 */
class Send {
  public static void main(String[] arguments) {
    SpanExporter exporter = exporter(arguments[1], arguments[2], arguments[3]);
    SdkTracerProvider provider =
        SdkTracerProvider.builder()
            .setResource(Resource.create(Attributes.builder().put("service.name", arguments[0]).build()))
            .addSpanProcessor(BatchSpanProcessor.builder(exporter).build())
            .build();
    Tracer tracer = provider.get("tests");
    Span checkout = tracer.spanBuilder("checkout").setSpanKind(SpanKind.SERVER).startSpan();
    checkout.setAttribute("http.response.status_code", 500);
    checkout.setStatus(StatusCode.ERROR, "no stock");
    checkout.addEvent("reserved");
    try (Scope scope = checkout.makeCurrent()) {
      Span call = tracer.spanBuilder("SELECT stock").setSpanKind(SpanKind.CLIENT).startSpan();
      call.setAttribute("db.system.name", "postgresql");
      call.setAttribute("noise", "caf\ud83d!");
      call.end();
    }
    checkout.end();
    boolean sent = provider.forceFlush().join(60, TimeUnit.SECONDS).isSuccess();
    provider.shutdown().join(60, TimeUnit.SECONDS);
    System.exit(sent ? 0 : 1);
  }

  private static SpanExporter exporter(String protocol, String endpoint, String compression) {
    if (protocol.equals("grpc")) {
      return OtlpGrpcSpanExporter.builder().setEndpoint("http://" + endpoint).setCompression(compression).build();
    }
    return OtlpHttpSpanExporter.builder().setEndpoint("http://" + endpoint + "/v1/traces").setCompression(compression).build();
  }
}
