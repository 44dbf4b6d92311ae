"""Notifications: a log line for every event, and signed webhooks that are delivered at least once."""

from workers.notifications.allowed_hosts import check_hosts
from workers.notifications.config import EventKind, Notifications, Webhook
from workers.notifications.delivery import DeliveryThread, deliver, notify
from workers.notifications.events import Event

__all__ = ["Notifications", "Webhook", "EventKind", "Event", "notify", "check_hosts", "deliver", "DeliveryThread"]
