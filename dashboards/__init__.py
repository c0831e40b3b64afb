"""Rules, dashboards and docs/metrics.md, made of the exporter's own table of metrics."""
