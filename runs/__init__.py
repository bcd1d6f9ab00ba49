"""What every run stands on: whole files, layout, records, configuration, devices, signals, dashboards."""
