"""MLflow as a view of the event logs, in the only package that imports it."""

from lola.tracking.models import fetch_model, fetch_stage
from lola.tracking.server import tracking_uri
from lola.tracking.sync import sync
from lola.tracking.tracker import Tracker

__all__ = ["Tracker", "fetch_model", "fetch_stage", "sync", "tracking_uri"]
