"""Decoders compiled by torch's inductor, with a cache on this host that processes share and that survives them.

What inductor keeps is loaded as code and unpickled: so the cache is a directory of its own, which belongs to this user
and which nobody else may read or write; it is refused otherwise. It is never sent anywhere, nor fetched.
"""

from __future__ import annotations

import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import platformdirs
import torch
from torch import nn

from generator.errors import SettingsError
from generator.spec.recipe import Execution

log = logging.getLogger(__name__)

CompileSetting = Literal["auto", "always", "never"]

_HINT = "install a C++ compiler (Debian: apt-get install g++), or set LATENTMILL_COMPILE=never"
_MIN_COMPILE_SECONDS = 600.0  # of decoding by one process: compiling takes up to a minute, and saves about a fifth


def default_cache_directory() -> Path:
    """Where compiled decoders are kept unless a setting says otherwise."""
    return Path(platformdirs.user_cache_dir("latentmill")) / "compiled"


def missing_compiler(device: str) -> str:
    """What this process lacks for compiling on torch device ``device``; empty if nothing."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError, OSError):
        return "no C++ compiler was found"
    if torch.device(device).type == "cuda":
        from torch.utils._triton import has_triton

        return "" if has_triton() else "triton is not installed"
    return ""


def resolve_execution(setting: CompileSetting, fixed: Execution | None, device: str, seconds: float) -> Execution:
    """How to decode: as the build's environment has ``fixed`` it, and for a new build as ``setting`` says.

    ``auto`` compiles where ``seconds`` of decoding in all are ahead and there is a compiler; where there is none, it
    says so in a warning. Raises ``SettingsError`` where compiling is asked for and cannot be done.
    """
    wanted = fixed or _preferred_execution(setting, seconds)
    if wanted == "eager":
        return "eager"
    if setting == "never":
        raise SettingsError("compile", "auto or always, as this build is decoded by a compiled decoder", "never")
    lack = missing_compiler(device)
    if lack and fixed is None and setting == "auto":
        log.warning("decoding without compiling, which is slower: %s; %s", lack, _HINT)
        return "eager"
    if lack:
        raise SettingsError("compile", "a compiler, as decoding is to be compiled", lack, _HINT)
    return "compiled"


def compile_network(network: nn.Module, cache: Path, threads: int) -> Any:
    """``network`` compiled for the shapes it is first called with, by callers of so many CPU threads.

    On a CPU all of it becomes one C++ function, which lets go of Python's lock: pieces called from Python would hold
    it, and lanes wait for one another. Raises ``SettingsError`` where ``cache`` is not this user's alone.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(ensure_private_directory(cache))
    whole = all(weight.device.type == "cpu" for weight in network.parameters())
    options: dict[str, Any] = {
        "cpp_wrapper": whole,
        "compile_threads": 1,
        "cpp.threads": threads,
        "fx_graph_cache": True,
    }
    return torch.compile(network, fullgraph=True, dynamic=False, options=options)


@contextmanager
def translate_compile_errors() -> Iterator[None]:
    """The block in which compiled code is called first, and so compiled. Raises ``SettingsError`` when that fails."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of parts of itself, which it imports only now
            yield
    except (TorchDynamoException, CppCompileError) as failed:
        told = str(failed).strip().splitlines()
        hint = "set LATENTMILL_COMPILE=never for new builds"
        raise SettingsError("compile", "a decoder that compiles", " ".join(told[:2])[:300], hint) from failed


def ensure_private_directory(path: Path) -> Path:
    """``path``, made if need be: a directory of this user's alone. Raises ``SettingsError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as wrong:
        raise _cache_error(path, wrong.strerror or "an error") from wrong
    if not stat.S_ISDIR(found.st_mode):
        raise _cache_error(path, "no directory" if not stat.S_ISLNK(found.st_mode) else "a symbolic link")
    if found.st_uid != os.getuid():
        raise _cache_error(path, f"a directory of user {found.st_uid}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise _cache_error(
            path, f"mode {stat.S_IMODE(found.st_mode):04o}", f"chmod 700 {path}, if you trust what is in it"
        )
    return path


def _preferred_execution(setting: CompileSetting, seconds: float) -> Execution:
    if setting == "auto":
        return "compiled" if seconds >= _MIN_COMPILE_SECONDS else "eager"
    return "compiled" if setting == "always" else "eager"


def _cache_error(
    path: Path, got: str, hint: str = "set LATENTMILL_COMPILE_CACHE to a directory of your own"
) -> SettingsError:
    return SettingsError("compile_cache", "a directory of this user's with mode 0700", f"{path} ({got})", hint)
