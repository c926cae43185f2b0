"""The report of a sweep, from the finished evaluations."""

from pathlib import Path

from lola.distributed.plan import Plan


def make_report(plan: Plan) -> Path:
    """Write the report of a plan whose trials are all finished."""
    return plan.root / "reports" / "report.html"
