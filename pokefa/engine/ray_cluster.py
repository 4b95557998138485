"""The Ray cluster of `pokefa.engine.ray_map`: the connection, and the code and packages of its nodes."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pokefa.engine.work import Cluster, Pool, Work, set_up, try_batch
from pokefa.errors import InputError, PokefaError, RunError, first_line
from pokefa.images.decoding import Limits, use_limits
from pokefa.machine import available_cores
from pokefa.setup.environments import CHECKOUT, file_lock, requirements_of

CONNECT_LIMIT_S = 10.0

# Results are a few hundred bytes per image, so the models need the memory more than Ray's object store.
OBJECT_STORE_BYTES = 256 * 2**20
# A node installs a stage's packages once; PyTorch may take longer than Ray's default of ten minutes.
INSTALL_LIMIT_S = 3600


@contextmanager
def connected(pool: Pool, cluster: Cluster) -> Iterator[Any]:
    """Connect to the cluster, or start one on this machine; yields the module `ray`."""
    # These settings apply only if Ray is started here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local: dict[str, Any] = {}
    if cluster.address is None:
        cores = max(available_cores(), (pool.workers or 0) * cluster.cpus)
        local = {"num_cpus": cores, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    elif cluster.address != "auto":
        check_address(cluster.address)
    ray: Any = importlib.import_module("ray")
    with redirect_stdout(sys.stderr):  # Ray reports dead nodes on stdout, which is for the summary only
        with tempfile.TemporaryDirectory(prefix="pokefa-code-") as folder, _own_sigterm():
            try:
                ray.init(
                    address=cluster.address or "local",
                    runtime_env=runtime_environment(cluster, copy_code(Path(folder))),
                    log_to_driver=False,
                    logging_level="ERROR",
                    **local,
                )
            except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
                raise InputError(
                    f"--engine ray: cannot connect to a cluster: {first_line(error)} (a cluster started with `ray "
                    "start` requires RAY_AUTH_MODE=token and its ~/.ray/auth_token)"
                ) from None
        try:
            yield ray
        finally:
            ray.shutdown()


def check_address(address: str) -> None:
    """Check that a server answers at the address, because Ray itself would retry for 15 minutes.

    Raises:
        InputError: none does.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdigit()):
        raise InputError(f"--ray-address {address}: give HOST:PORT, as printed by `ray start --head`")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_LIMIT_S).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--ray-address {address}: no Ray cluster answers there ({error}): start its head with `ray start --head`"
        ) from None


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep this process's SIGTERM handler, which `ray.init` would replace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def runtime_environment(cluster: Cluster, code: Path) -> dict[str, Any]:
    """Return Ray's runtime environment for each node: the code, and the stage's requirements.

    It contains no environment variables, and so no API keys.

    Args:
        code: folder that comes first on the workers' module path.
    """
    # The driver's node, which may do no work, installs nothing unless a worker is placed there.
    config = {"setup_timeout_seconds": INSTALL_LIMIT_S, "eager_install": False}
    given: dict[str, Any] = {"working_dir": str(code), "config": config}
    if cluster.install:
        packages, _ = requirements_of(cluster.requirements)
        given["pip"] = {"packages": list(packages), "pip_check": False}
    return given


def copy_code(folder: Path) -> Path:
    """Copy the repository's packages into `folder`: Python files, and the JSON files beside them; return it."""
    for package in CHECKOUT.glob("*/__init__.py"):
        for path in package.parent.rglob("*.py"):
            for file in filter(Path.is_file, (path, path.with_suffix(".json"))):
                target = folder / file.relative_to(CHECKOUT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
    return folder


# A worker's answer for an item: its result, or a one-line error.
Answer = tuple[Any, str | None]


class Worker:
    """The actor. It returns errors that end a run instead of raising them, because Ray would add a traceback."""

    def __init__(self) -> None:
        self._work: Work[Any, Any] | None = None

    def start(
        self,
        make_work: Callable[[], Work[Any, Any]],
        folder: str,
        shared: Path | None,
        without_dependencies: list[str],
        limits: Limits,
    ) -> PokefaError | None:
        """Call the factory, in the driver's working folder if the node has it, so that relative paths work."""
        try:
            if shared is not None and not shared.is_dir():
                raise PokefaError(f"{shared} does not exist: use storage that all nodes mount at the same path")
            with suppress(OSError):
                os.chdir(folder)
            install_without_dependencies(without_dependencies)
            use_limits(limits)
            self._work = set_up(make_work)
        except PokefaError as error:
            return type(error)(f"{error} (on node {platform.node()})")
        return None

    def run(self, batch: list[Any]) -> list[Answer] | RunError:
        assert self._work is not None
        try:
            return [(outcome.result, outcome.error) for outcome in try_batch(self._work, batch)]
        except RunError as error:
            return error


def install_without_dependencies(packages: Sequence[str]) -> None:
    """Install packages without their dependencies into this worker's environment, which Ray created for the job.

    Ray passes the same options to pip for all packages, so it cannot do this.

    Args:
        packages: as `name==version`.

    Raises:
        PokefaError: pip failed.
    """
    with file_lock(Path(sys.prefix) / "pokefa-no-deps.lock"):
        missing = [package for package in packages if not _is_installed(*package.split("=="))]
        if not missing:
            return
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        done = subprocess.run([*pip, *missing], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        errors = [line for line in done.stdout.splitlines() if line.startswith("ERROR")] or ["no message"]
        raise PokefaError(f"pip could not install {' '.join(missing)}: {errors[0]}")


def _is_installed(name: str, wanted: str) -> bool:
    try:
        return version(name) == wanted
    except PackageNotFoundError:
        return False
