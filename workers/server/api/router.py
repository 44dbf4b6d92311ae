"""All routes of API v1."""

from __future__ import annotations

from fastapi import APIRouter

from workers.server.api import service

API_PREFIX = "/api/v1"

router = APIRouter(prefix=API_PREFIX)
router.include_router(service.router)
