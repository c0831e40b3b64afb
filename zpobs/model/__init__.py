"""The shadow model: from observations to frozen snapshots."""

from zpobs.model.inputs import CountersReading, Coverage, PoolReading
from zpobs.model.shadow import ShadowModel

__all__ = ["CountersReading", "Coverage", "PoolReading", "ShadowModel"]
