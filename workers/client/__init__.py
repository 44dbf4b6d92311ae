"""The Python client: submit jobs, follow them, cancel them. Importing it does not import torch."""

from workers.client.client import Client
from workers.client.service import Submittable

__all__ = ["Client", "Submittable"]
