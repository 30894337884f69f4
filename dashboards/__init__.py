"""Dashboards: the report, the live page and a board for Grafana. They read, and change nothing of a sweep."""
