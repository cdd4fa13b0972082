"""The Grafana dashboards as code: `python -m monitoring.dashboards` makes monitoring/grafana/dashboards/*.json anew.

The JSON is what Grafana provisions and is kept in the repository; a test holds it to be what this makes.
"""
