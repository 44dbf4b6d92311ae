"""Redis as the broker: the connection, kombu's transport, the Celery application."""
