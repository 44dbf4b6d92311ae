"""Nightly builds: schedules as declared files, their runs in the store, and the ticker that keeps them going."""
