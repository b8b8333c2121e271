"""An OTLP collector that prints what it gets: `otlp_receiver.py grpc|http [PORT]`.

The first line is the port it listens on, on loopback; then one JSON object a line for each request. Messages are read
with the classes generated from OpenTelemetry's published protobufs.
"""

import json
import sys
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as service
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status


def value(any_value):
    kind = any_value.WhichOneof("value")
    return {"kind": kind, "value": getattr(any_value, kind)}


def attributes(pairs):
    return {pair.key: value(pair.value) for pair in pairs}


def span(one):
    return {
        "trace_id": one.trace_id.hex(),
        "span_id": one.span_id.hex(),
        "parent_id": one.parent_span_id.hex(),
        "trace_state": one.trace_state,
        "name": one.name,
        "kind": Span.SpanKind.Name(one.kind),
        "start": one.start_time_unix_nano,
        "end": one.end_time_unix_nano,
        "attributes": attributes(one.attributes),
        "status": Status.StatusCode.Name(one.status.code),
        "message": one.status.message,
        "events": [{"name": event.name, "attributes": attributes(event.attributes)} for event in one.events],
    }


def show(request, how):
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            line = {
                "how": how,
                "resource": attributes(resource.resource.attributes),
                "scope": scope.scope.name,
                "spans": [span(one) for one in scope.spans],
            }
            print(json.dumps(line), flush=True)


class Grpc(rpc.TraceServiceServicer):
    def Export(self, request, context):
        show(request, "grpc")
        return service.ExportTraceServiceResponse()


class Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        show(service.ExportTraceServiceRequest.FromString(body), f"{self.path} {self.headers['Content-Type']}")
        answer = service.ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def main():
    how, port = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    if how == "grpc":
        # a port that another collector has is refused, not shared
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), options=[("grpc.so_reuseport", 0)])
        rpc.add_TraceServiceServicer_to_server(Grpc(), server)
        print(server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)
        server.start()
        server.wait_for_termination()
    else:
        server = ThreadingHTTPServer(("127.0.0.1", port), Http)
        print(server.server_address[1], flush=True)
        server.serve_forever()


main()
