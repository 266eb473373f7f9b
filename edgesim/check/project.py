"""Applies all rules to all Workers of a project."""

from __future__ import annotations

from edgesim.check.calls import check_calls
from edgesim.check.env_names import check_env_names
from edgesim.check.findings import Finding
from edgesim.check.handlers import (
    check_entrypoints,
    check_handlers,
    check_roles,
    handled,
)
from edgesim.check.loading import check_loading
from edgesim.check.modules import check_modules
from edgesim.check.queues import check_queues
from edgesim.check.settings import check_settings
from edgesim.check.sources import sources_of
from edgesim.check.state import check_global_scope, check_state
from edgesim.config import Project, WorkerConfig


def check_project(project: Project) -> list[Finding]:
    """All findings without duplicates, sorted by file and line."""
    found: set[Finding] = set()
    handlers, mains = {}, {}
    for worker in project.workers.values():
        found |= _check_worker(worker, project)
        if worker.is_javascript:
            continue
        mains[worker.name] = sources_of(worker)[0]
        handlers[worker.name] = handled(worker, mains[worker.name])
    found |= set(check_roles(project, handlers))
    found |= set(check_entrypoints(project, mains))
    found |= set(check_queues(project))
    return sorted(_without_echoes(found))


def _check_worker(worker: WorkerConfig, project: Project) -> set[Finding]:
    root = project.root
    found = set(check_settings(worker, root))
    if worker.is_javascript:  # esbuild and workerd report errors of its code when it starts
        return found
    sources = sources_of(worker)
    found |= set(check_modules(worker, sources, root))
    found |= set(check_handlers(worker, sources[0], root))
    for source in sources:
        found |= set(check_global_scope(source, root))
        found |= set(check_state(source, root))
        found |= set(check_calls(worker, source, root))
        found |= set(check_env_names(worker, source, root))
    return found | set(check_loading(worker, root))


def _without_echoes(found: set[Finding]) -> set[Finding]:
    """Keep one finding per line where loading and another rule report the same problem.

    The loading error is kept over the warning for an unconfigured name; every other rule is kept
    over loading.
    """
    loading = {(each.file, each.line) for each in found if each.rule == "loading"}
    found = {each for each in found if each.rule != "env" or (each.file, each.line) not in loading}
    explained = {(each.file, each.line) for each in found if each.rule != "loading"}
    return {
        each for each in found if each.rule != "loading" or (each.file, each.line) not in explained
    }
