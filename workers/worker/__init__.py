"""The worker: Celery tasks, ticket handler, decoder and build caches, heartbeat, reconciler, shutdown."""
