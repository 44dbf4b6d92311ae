"""Scheduled builds: schedule files, their runs in the store, and the ticker that starts and advances the runs."""
