"""Studies that several processes work on: speed, and what it costs in quality."""
