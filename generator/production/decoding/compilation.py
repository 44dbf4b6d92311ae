"""Compiles decoders with torch's inductor; processes of this host share a persistent cache directory.

Inductor loads its cache as code and unpickles it. The cache must therefore be a directory of its own that is owned by
this user and has mode 0700; any other is refused. It is never copied to or from another host.
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
# Compile if one process decodes at least this long: compiling takes up to a minute and saves about 20%.
_MIN_COMPILE_SECONDS = 600.0


def default_cache_directory() -> Path:
    """The default cache directory for compiled decoders."""
    return Path(platformdirs.user_cache_dir("latentmill")) / "compiled"


def missing_compiler(device: str) -> str:
    """Why this process cannot compile for torch device ``device``; empty if it can."""
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
    """How to decode: as ``fixed`` by the build's environment, or for a new build according to ``setting``.

    ``auto`` compiles if the expected ``seconds`` of decoding are enough and there is a compiler; without a compiler it
    logs a warning. Raises ``SettingsError`` if compiling is required and cannot be done, or is not allowed.
    """
    execution = fixed or _preferred_execution(setting, seconds)
    if execution == "eager":
        return "eager"
    if setting == "never":
        raise SettingsError("compile", "auto or always, because this build uses a compiled decoder", "never")
    missing = missing_compiler(device)
    if missing and fixed is None and setting == "auto":
        log.warning("decoding without compiling, which is slower: %s; %s", missing, _HINT)
        return "eager"
    if missing:
        raise SettingsError("compile", "a compiler, because this decoder must be compiled", missing, _HINT)
    return "compiled"


def compile_network(network: nn.Module, cache: Path, threads: int) -> Any:
    """``network``, compiled for the shapes of its first call, for callers with ``threads`` CPU threads.

    On a CPU the whole network becomes one C++ function, which releases the GIL; separate kernels called from Python
    would hold it and make lanes wait for each other. Raises ``SettingsError`` if ``cache`` is not private to this user.

    Headers are not precompiled: inductor would look for them in the directory for temporary files, where other users
    can put theirs, and they save no time.
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(ensure_private_directory(cache))
    on_cpu = all(weight.device.type == "cpu" for weight in network.parameters())
    options: dict[str, Any] = {
        "cpp_wrapper": on_cpu,
        "cpp_cache_precompile_headers": False,
        "compile_threads": 1,
        "cpp.threads": threads,
        "fx_graph_cache": True,
    }
    return torch.compile(network, fullgraph=True, dynamic=False, options=options)


@contextmanager
def translate_compile_errors() -> Iterator[None]:
    """Wraps the first call of a compiled network, which compiles it. Raises ``SettingsError`` if that fails."""
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about its own modules, which it imports here
            yield
    except (TorchDynamoException, CppCompileError) as failed:
        lines = str(failed).strip().splitlines()
        hint = "set LATENTMILL_COMPILE=never for new builds"
        raise SettingsError("compile", "a decoder that compiles", " ".join(lines[:2])[:300], hint) from failed


def ensure_private_directory(path: Path) -> Path:
    """``path`` as a directory that only this user can access, created if it is missing. Raises ``SettingsError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as wrong:
        raise _cache_error(path, wrong.strerror or "an error") from wrong
    if not stat.S_ISDIR(found.st_mode):
        raise _cache_error(path, "not a directory" if not stat.S_ISLNK(found.st_mode) else "a symbolic link")
    if found.st_uid != os.getuid():
        raise _cache_error(path, f"a directory of user {found.st_uid}")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise _cache_error(
            path, f"mode {stat.S_IMODE(found.st_mode):04o}", f"chmod 700 {path}, if you trust its contents"
        )
    return path


def _preferred_execution(setting: CompileSetting, seconds: float) -> Execution:
    if setting == "auto":
        return "compiled" if seconds >= _MIN_COMPILE_SECONDS else "eager"
    return "compiled" if setting == "always" else "eager"


def _cache_error(
    path: Path, got: str, hint: str = "set LATENTMILL_COMPILE_CACHE to a directory of your own"
) -> SettingsError:
    return SettingsError("compile_cache", "a directory owned by this user with mode 0700", f"{path} ({got})", hint)
