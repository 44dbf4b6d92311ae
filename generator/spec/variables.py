"""Names of environment variables: misspelt ones are refused instead of being ignored."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches

from generator.errors import SettingsError

# Kubernetes and Docker put the addresses of services into the environment; a service `latentmill-redis` gives these.
_SERVICE_LINK = re.compile(r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$")


def check_names(names: Iterable[str], prefix: str, known: Collection[str]) -> None:
    """Check the ``names`` that begin with ``prefix``, in capitals or not.

    ``known`` has the valid ones, in capitals, without the prefix. Names of the links of Kubernetes services are
    passed over. Raises ``SettingsError`` with the nearest known name for the first one that is unknown.
    """
    for name in sorted(names):
        own = name.upper().removeprefix(prefix)
        if own == name.upper() or own in known or _SERVICE_LINK.search(own):
            continue
        near = get_close_matches(own, sorted(known), n=1, cutoff=0.6)
        hint = f"did you mean {prefix}{near[0]}?" if near else "deploy/.env.example names all of them"
        raise SettingsError(name, f"the name of a setting, as it begins with {prefix}", "a name of none", hint)
