import tomllib
from typing import Any

import pytest
from pydantic import ValidationError

from processors.spans.sampling.settings import SamplingSettings

COLLECTOR: list[dict[str, Any]] = [  # the list of tail_sampling's README, but for what only a Collector has
    {"name": "test-policy-1", "type": "always_sample"},
    {
        "name": "test-policy-2",
        "type": "latency",
        "latency": {"threshold_ms": 5000, "upper_threshold_ms": 10000},
    },
    {
        "name": "test-policy-3",
        "type": "numeric_attribute",
        "numeric_attribute": {"key": "key1", "min_value": 50, "max_value": 100},
    },
    {"name": "test-policy-4", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}},
    {"name": "test-policy-5", "type": "status_code", "status_code": {"status_codes": ["ERROR", "UNSET"]}},
    {
        "name": "test-policy-6",
        "type": "string_attribute",
        "string_attribute": {"key": "key2", "values": ["value1", "value2"]},
    },
    {
        "name": "test-policy-7",
        "type": "string_attribute",
        "string_attribute": {
            "key": "key2",
            "values": ["value1", "val*"],
            "enabled_regex_matching": True,
            "cache_max_size": 10,
        },
    },
    {"name": "test-policy-10", "type": "span_count", "span_count": {"min_spans": 2, "max_spans": 20}},
    {
        "name": "test-policy-11",
        "type": "trace_state",
        "trace_state": {"key": "key3", "values": ["value1", "value2"]},
    },
    {
        "name": "test-policy-12",
        "type": "boolean_attribute",
        "boolean_attribute": {"key": "key4", "value": True},
    },
    {
        "name": "and-policy-1",
        "type": "and",
        "and": {
            "and_sub_policy": [
                {
                    "name": "test-and-policy-1",
                    "type": "numeric_attribute",
                    "numeric_attribute": {"key": "key1", "min_value": 50, "max_value": 100},
                },
                {
                    "name": "test-and-policy-2",
                    "type": "string_attribute",
                    "string_attribute": {"key": "key5", "values": ["value1", "value2"]},
                },
            ]
        },
    },
    {
        "name": "not-policy-1",
        "type": "not",
        "not": {
            "not_sub_policy": {"name": "test-not-policy-1", "type": "latency", "latency": {"threshold_ms": 1}}
        },
    },
    {
        "name": "drop-policy-1",
        "type": "drop",
        "drop": {
            "drop_sub_policy": [
                {
                    "name": "test-drop-policy-1",
                    "type": "string_attribute",
                    "string_attribute": {
                        "key": "url.path",
                        "values": [r"\/health", r"\/metrics"],
                        "enabled_regex_matching": True,
                    },
                }
            ]
        },
    },
]


def test_a_collectors_list_can_be_copied_over() -> None:
    settings = SamplingSettings.model_validate({"policies": COLLECTOR})
    assert [policy.type for policy in settings.policies] == [policy["type"] for policy in COLLECTOR]
    assert settings.attribute_keys() == ("key1", "key2", "key4", "key5", "url.path")


def test_settings_survive_being_written_and_read() -> None:
    settings = SamplingSettings.model_validate({"policies": COLLECTOR})
    assert SamplingSettings.model_validate_json(settings.model_dump_json()) == settings
    assert SamplingSettings.model_validate_json(SamplingSettings().model_dump_json()) == SamplingSettings()


def test_toml_as_the_documentation_writes_it() -> None:
    settings = SamplingSettings.model_validate(
        tomllib.loads(
            """
            dry_run = true
            [[policies]]
            name = "overflows"
            type = "response_flag"
            response_flag = {flags = ["UO"]}
            [[policies]]
            name = "some"
            type = "budget"
            budget = {traces_per_second = 2, keys = ["service"]}
            """
        )
    )
    assert settings.dry_run
    assert [policy.name for policy in settings.policies] == ["overflows", "some"]


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        (
            {"type": "latency", "latency": {"treshold_ms": 5}},
            "supported here: threshold_ms, upper_threshold_ms",
        ),
        (
            {"type": "rate_limiting", "rate_limiting": {"spans_per_second": 5}},
            'instead of rate_limiting, write type = "budget"',
        ),
        ({"type": "ottl_condition"}, "instead of ottl_condition"),
        ({"type": "lottery"}, "unknown policy type 'lottery'; supported: always_sample, status_code"),
        ({}, "unknown policy type None"),
        ({"type": "latency"}, "latency"),
        ({"type": "status_code", "status_code": {"status_codes": ["BAD"]}}, "'OK', 'ERROR' or 'UNSET'"),
        ({"type": "and", "and": {"sub_policy": []}}, "supported here: and_sub_policy"),
        ({"type": "numeric_attribute", "numeric_attribute": {"key": "k"}}, "min_value, max_value or both"),
        (
            {
                "type": "string_attribute",
                "string_attribute": {"key": "k", "values": ["("], "enabled_regex_matching": True},
            },
            "is not a regular expression",
        ),
        (
            {
                "type": "not",
                "not": {"not_sub_policy": {"type": "budget", "budget": {"traces_per_second": 1}}},
            },
            "a budget can't be turned round",
        ),
        (
            {
                "type": "and",
                "and": {
                    "and_sub_policy": [
                        {"type": "drop", "drop": {"drop_sub_policy": [{"type": "always_sample"}]}}
                    ]
                },
            },
            "drop stands at the top of the list only",
        ),
        ({"type": "always_sample", "name": ""}, "every policy needs a name"),
    ],
)
def test_an_error_says_what_to_do(policy: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SamplingSettings.model_validate({"policies": [{"name": "p", **policy}]})
    assert says in str(caught.value)


def test_names_are_unique() -> None:
    with pytest.raises(ValidationError, match="two policies are named p"):
        SamplingSettings.model_validate({"policies": [{"name": "p", "type": "always_sample"}] * 2})
