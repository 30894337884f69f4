"""What the user wrote: a YAML text becomes a `SweepSpec`."""
