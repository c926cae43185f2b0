"""MLflow as a view of the event logs, in the only package that imports it."""

from lola.storage.tracking.fetch import fetch_model, fetch_stage
from lola.storage.tracking.server import tracking_uri
from lola.storage.tracking.sync import sync
from lola.storage.tracking.tracker import Tracker

__all__ = ["Tracker", "fetch_model", "fetch_stage", "sync", "tracking_uri"]
