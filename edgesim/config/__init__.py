"""Configuration: each Worker's wrangler file, the account's edgesim.toml, and the environment."""

from edgesim.config.environment import Environment
from edgesim.config.loading import load_project
from edgesim.config.project import Project
from edgesim.config.wrangler import WorkerConfig

__all__ = ["Environment", "Project", "WorkerConfig", "load_project"]
