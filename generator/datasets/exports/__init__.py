"""Copies of committed builds in the forms that other readers want, where these cannot be shards of a build.

Imports no torch, and the packages of the targets only where they are needed.
"""

from generator.datasets.exports.export import Credentials, Exported, Target, export_build

__all__ = ["Credentials", "Exported", "Target", "export_build"]
