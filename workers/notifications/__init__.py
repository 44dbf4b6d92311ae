"""Notifications: a line in the log always, and signed webhooks that are delivered at least once."""

from workers.notifications.config import Kind, Notifications, Webhook

__all__ = ["Notifications", "Webhook", "Kind"]
