"""A worker process: tasks, tickets, decoder and build caches, heartbeat, reconciler, shutdown."""
