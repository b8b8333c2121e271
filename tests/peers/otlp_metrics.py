"""Sends metrics with the OpenTelemetry SDK: otlp_metrics.py ADDRESS {http|grpc} {delta|cumulative} [CERTIFICATE TOKEN]."""

import sys

from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

address, transport, temporality, *secret = sys.argv[1:]
if transport == "grpc":
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from grpc import Compression

    options = {"endpoint": f"http://{address}", "insecure": True}
    if temporality == "delta":
        options["compression"] = Compression.Gzip
    if secret:
        from grpc import ssl_channel_credentials

        with open(secret[0], "rb") as file:
            trusted = ssl_channel_credentials(file.read())
        options = {
            "endpoint": f"https://{address}", "credentials": trusted,
            "headers": (("authorization", f"Bearer {secret[1]}"),), "timeout": 5,
        }
else:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    options = {"endpoint": f"http://{address}/v1/metrics", "compression": Compression.Gzip}
kinds = {Counter: AggregationTemporality.DELTA, Histogram: AggregationTemporality.DELTA}
exporter = OTLPMetricExporter(preferred_temporality=kinds if temporality == "delta" else {}, **options)
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
provider = MeterProvider([reader], resource=Resource({"service.name": f"{transport}-{temporality}"}))
meter = provider.get_meter("tests")
requests, sizes = meter.create_counter("requests"), meter.create_histogram("sizes")
level, open_now = meter.create_gauge("level"), meter.create_up_down_counter("open")
for n in range(1, 4):
    requests.add(n, {"path": "/a b,c=d"})
    sizes.record(n * 40.0)
    level.set(n / 2)
    open_now.add(-1)
    assert provider.force_flush(), "the collector did not take it"
provider.shutdown()
