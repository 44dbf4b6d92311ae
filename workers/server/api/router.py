"""All routes of API v1."""

from __future__ import annotations

from fastapi import APIRouter

from workers.server.api import bundles, datasets, jobs, samples, schedules, service

API_PREFIX = "/api/v1"

router = APIRouter(prefix=API_PREFIX)
for part in (service, jobs, bundles, samples, datasets, schedules):
    router.include_router(part.router)
