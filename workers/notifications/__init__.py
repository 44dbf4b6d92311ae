"""Notifications: a line in the log always, and signed webhooks that are delivered at least once."""

from workers.notifications.allowed_hosts import check_hosts
from workers.notifications.config import Kind, Notifications, Webhook
from workers.notifications.delivery import Courier, deliver, notify
from workers.notifications.events import Event

__all__ = ["Notifications", "Webhook", "Kind", "Event", "notify", "check_hosts", "deliver", "Courier"]
