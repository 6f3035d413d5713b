"""Where work runs.  Today: in this process."""
