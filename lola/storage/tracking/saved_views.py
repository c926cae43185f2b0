"""Views of a sweep's runs as MLflow keeps them: tags of the experiment, which its pages list as *Views*.

The format is that of MLflow 3.16 and 3.17; a server that does not know it shows an unused tag.
"""

import json
import re
from typing import Any

from lola.storage.views import Axis, View

TAG = "mlflow.sharedViewState."
SECTIONS = {"params": "PARAM", "metrics": "METRIC"}


def view_key(sweep: str, name: str) -> str:
    """What identifies a sweep's view, also in the address of its page.

    Arguments:
        sweep: The sweep's fingerprint.
    """
    return f"lola-{sweep[:8]}-{re.sub('[^a-z0-9]+', '-', name.lower())}"


def experiment_tag(view: View, sweep: str, time: int) -> tuple[str, str]:
    """The name and value of the tag that keeps a view; `time` is Unix time in milliseconds."""
    key = view_key(sweep, view.name)
    columns = [_column(*column) for column in view.columns]
    state = {
        "searchFilter": f"tags.`lola.sweep` = '{sweep}' AND {view.condition}",
        "orderByKey": _column("metrics", view.order),
        "orderByAsc": True,
        "selectedColumns": ["attributes.`Duration`", *columns],
        "columnOrder": columns,
        "compareRunSections": [_section(key, view.name)],
        "compareRunCharts": _charts(view, key),
        "isAccordionReordered": True,
        "runsHiddenMode": "SHOW_ALL",
        "groupBy": None,
    }
    name = f"{view.name} (sweep {sweep[:8]})"
    value = {"name": name, "createdAt": time, "updatedAt": time, "state": json.dumps(state)}
    return TAG + key, json.dumps(value)


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _section(key: str, name: str) -> dict[str, Any]:
    return {
        **{"uuid": f"{key}-section", "name": name, "display": True, "isReordered": False},
        **{"deleted": False, "isGenerated": False},
    }


def _charts(view: View, key: str) -> list[dict[str, Any]]:
    charts: list[dict[str, Any]] = [
        {
            **{"type": "SCATTER", "xaxis": _axis(across), "yaxis": _axis(up), "runsCountToCompare": 100},
            "displayName": f"{up[1]} against {across[1]}",
        }
        for across, up in view.points
    ]
    charts += [
        {
            **{"type": "LINE", "metricKey": name, "selectedMetricKeys": [name], "yAxisKey": "metric"},
            **{"xAxisKey": "step", "selectedXAxisMetricKey": "", "xAxisScaleType": "linear"},
            **{"scaleType": "log", "lineSmoothness": 0, "yAxisExpressions": [], "ignoreOutliers": False},
            **{"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, "range": {}},
            **{"runsCountToCompare": 100, "displayName": name},
        }
        for name in view.curves
    ]
    shared = {"metricSectionId": f"{key}-section", "deleted": False, "isGenerated": False}
    return [chart | shared | {"uuid": f"{key}-{number}"} for number, chart in enumerate(charts)]


def _axis(axis: Axis) -> dict[str, str]:
    kind, name = axis
    return {"key": name, "type": SECTIONS[kind]}
