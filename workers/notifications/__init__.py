"""Notifications: a line in the log always, and signed webhooks that are delivered at least once."""

from workers.notifications.config import Kind, Notifications, Webhook
from workers.notifications.courier import Courier, deliver, notify
from workers.notifications.events import Event
from workers.notifications.hosts import check_hosts

__all__ = ["Notifications", "Webhook", "Kind", "Event", "notify", "check_hosts", "deliver", "Courier"]
