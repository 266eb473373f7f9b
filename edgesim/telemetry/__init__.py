"""Export of traces and logs by OTLP; needs ``pip install 'edgesim[otel]'``.

``invocations`` turns finished invocations into spans and log records, ``exporter`` queues them, and
``otlp`` sends them: the only module that imports OpenTelemetry, and only while something is
exported.
"""
