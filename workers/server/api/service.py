"""Routes about the server itself: whether it is alive, and who the caller is."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.requests import Request

from workers.server.access.roles import Role
from workers.server.callers import Caller, require
from workers.server.context import context_of

router = APIRouter(tags=["service"])


class Health(BaseModel):
    """The server answers. Nothing else is asked: a server without Redis is still of use."""

    alive: bool = True


class Self(BaseModel):
    """The caller's tenant and role, and the names of its places."""

    tenant: str
    role: Role
    places: list[str]
    release: str


@router.get("/health")
async def health() -> Health:
    """Whether the server is alive; needs no key."""
    return Health()


@router.get("/self")
def who_am_i(request: Request, caller: Annotated[Caller, Depends(require("reader"))]) -> Self:
    """Who the caller is."""
    places = sorted(context_of(request).places.places(caller.tenant))
    return Self(tenant=caller.tenant, role=caller.role, places=places, release=version("latentmill"))
