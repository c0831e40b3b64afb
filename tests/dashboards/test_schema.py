"""The dashboards against Grafana's published schema, as its own SDK has it (made of it by Grafana).

The SDK reads a dashboard into its types and writes it out again: what the schema does not know is
lost on the way, and what has another type than it says is found by the types' own annotations.
"""

from __future__ import annotations

import builtins
import copy
import enum
import json
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard as GrafanaDashboard

from dashboards.boards import BOARDS
from dashboards.grafana import dashboard_json
from dashboards.panels import Dashboard

# Written by every Grafana, and in no published schema: inputs of an import, the words of a variable
# as a person wrote them, and the id that an import gives.
BEYOND = {".__inputs", ".id", ".templating.list.definition"}
MODELS = "grafana_foundation_sdk.models."


@pytest.fixture(scope="module", autouse=True)
def kinds_of_panels() -> None:
    plugins.register_default_plugins()


@pytest.fixture(params=BOARDS, ids=lambda board: board.uid)
def found(request: pytest.FixtureRequest) -> dict[str, Any]:
    board: Dashboard = request.param
    made: dict[str, Any] = json.loads(dashboard_json(board))
    return made


def differences(before: Any, after: Any, at: str = "") -> Iterator[str]:
    """Yield where something was lost or has become something else; more there may be."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            place = f"{at}.{key}"
            if key in after:
                yield from differences(value, after[key], place)
            else:
                yield place
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for one, other in zip(before, after, strict=True):
            yield from differences(one, other, at)
    elif before != after:
        yield at


def mistyped(value: Any, at: str = "") -> Iterator[str]:
    """Yield which attributes of the SDK's objects, and of those within, are not of their type."""
    if isinstance(value, list):
        for each in value:
            yield from mistyped(each, at)
    elif type(value).__module__.startswith(MODELS):
        module = sys.modules[type(value).__module__]
        for name, hint in typing.get_type_hints(type(value).__init__, vars(module)).items():
            if name == "return":
                continue
            place = f"{at}.{name}"
            if not fits(getattr(value, name), hint):
                yield place
            yield from mistyped(getattr(value, name), place)


def fits(value: Any, hint: Any) -> bool:
    """Tell whether a value is of a type; the SDK leaves enums and some objects as it read them."""
    parts = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Union | types.UnionType:
            return any(fits(value, part) for part in parts)
        case typing.Literal:
            return value in parts
        case builtins.list:
            return isinstance(value, list) and all(fits(each, parts[0]) for each in value)
        case builtins.dict:
            return isinstance(value, dict) and all(fits(each, parts[1]) for each in value.values())
    if hint in (object, Any):
        return True
    if issubclass(hint, enum.Enum):
        return value in [each.value for each in hint]
    if isinstance(value, dict) and hasattr(hint, "from_json"):
        return not [*mistyped(hint.from_json(value))]
    # A number may be written without a fraction, but true is none.
    return isinstance(value, (int, float) if hint is float else hint) and (
        hint is bool or not isinstance(value, bool)
    )


def faults(found: dict[str, Any]) -> set[str]:
    """Return where a dashboard is not as the schema has it."""
    read = GrafanaDashboard.from_json(copy.deepcopy(found))
    written = json.loads(json.dumps(read, cls=JSONEncoder))
    return (set(differences(found, written)) - BEYOND) | set(mistyped(read))


def test_dashboards_are_of_the_schema(found: dict[str, Any]) -> None:
    """Nothing that it does not know, and nothing of another type."""
    assert faults(found) == set()


def timeseries(found: dict[str, Any]) -> dict[str, Any]:
    panel: dict[str, Any] = next(each for each in found["panels"] if each["type"] == "timeseries")
    return panel


def _unknown_key(found: dict[str, Any]) -> None:
    found["panels"][1]["gridpos"] = {}


def _unknown_option(found: dict[str, Any]) -> None:
    timeseries(found)["options"]["legends"] = {}


def _unknown_custom(found: dict[str, Any]) -> None:
    timeseries(found)["fieldConfig"]["defaults"]["custom"]["spanNull"] = False


def _wrong_type(found: dict[str, Any]) -> None:
    found["panels"][1]["gridPos"]["w"] = "12"


def _wrong_value(found: dict[str, Any]) -> None:
    timeseries(found)["fieldConfig"]["defaults"]["custom"]["drawStyle"] = "lines"


def _wrong_target(found: dict[str, Any]) -> None:
    found["panels"][1]["targets"][0]["format"] = "timeseries"


@pytest.mark.parametrize(
    "wrong",
    [_unknown_key, _unknown_option, _unknown_custom, _wrong_type, _wrong_value, _wrong_target],
)
def test_what_is_wrong_is_found(
    found: dict[str, Any], wrong: Callable[[dict[str, Any]], None]
) -> None:
    """Keys, types and words that no Grafana knows."""
    wrong(found)
    assert faults(found)
