"""Roles: what a key allows. Each role includes the ones before it."""

from __future__ import annotations

from typing import Literal, get_args

Role = Literal["reader", "submitter", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)


def includes(held: Role, needed: Role) -> bool:
    """Whether a key with the role ``held`` may do what ``needed`` allows."""
    return ROLES.index(held) >= ROLES.index(needed)
