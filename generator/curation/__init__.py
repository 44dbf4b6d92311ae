"""Is a dataset good, and which builds stay: diagnosis, quality, gates, retention, costs."""
