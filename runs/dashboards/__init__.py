"""Dashboards: where the values and images of a run go, in addition to its own folder."""
