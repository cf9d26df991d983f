"""The operator's options: flags, the environment, defaults."""

from __future__ import annotations

import argparse

import pytest

from injector import options
from injector.errors import InvalidOptions


def parsed(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    options.add_flags(parser)
    return parser.parse_args(flags)


def test_a_flag_wins_over_the_environment_and_that_over_the_default() -> None:
    environment = {"PORT": "1000", "LOG_LEVEL": "error"}
    chosen = options.read_flags(parsed("--port", "2000"), environment)
    assert (chosen.port, chosen.log_level, chosen.log_format) == (2000, "error", "auto")


def test_wrong_flags_and_wrong_variables_are_reported_together() -> None:
    with pytest.raises(InvalidOptions) as caught:
        options.read_flags(parsed("--port", "99999"), {"LOG_LEVEL": "loud", "METRICS_BIND_ADDRESS": "8080"})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "PORT",
        "METRICS_BIND_ADDRESS",
        "LOG_LEVEL",
    ]


def test_help_names_every_option_with_its_variable_meaning_and_default() -> None:
    parser = argparse.ArgumentParser()
    options.add_flags(parser)
    text = "".join(parser.format_help().split())
    for option in options.OPTIONS:
        rest = f"(environment: {option.variable}; default: {option.default or 'empty'})"
        expected = f"{option.flag} {option.variable} {option.meaning} {rest}"
        assert "".join(expected.split()) in text


@pytest.mark.parametrize("variable", ["DEFAULT_IMAGE", "INIT_IMAGE"])
def test_default_images_name_their_registry_as_cri_o_pulls_no_others(variable: str) -> None:
    (option,) = (option for option in options.OPTIONS if option.variable == variable)
    assert option.default.startswith("docker.io/")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("LITESTREAM_HTTPS_PROXY", "proxy:3128"),
        ("LITESTREAM_HTTPS_PROXY", "http://me:secret@proxy:3128"),
        ("LITESTREAM_HTTP_PROXY", "http://proxy:3128?key=secret"),
        ("LITESTREAM_NO_PROXY", ".svc, 10.0.0.0/8"),
        ("LITESTREAM_NO_PROXY", "$(HOST)"),
    ],
)
def test_a_proxy_is_a_url_without_a_login_and_its_exceptions_are_hosts(variable: str, text: str) -> None:
    with pytest.raises(InvalidOptions, match=rf"^{variable}: .*: write "):
        options.read({variable: text})


def test_a_proxy_may_have_any_host_and_port() -> None:
    texts = {"LITESTREAM_HTTPS_PROXY": "http://10.0.0.1:3128", "LITESTREAM_NO_PROXY": ".svc,10.0.0.0/8,::1"}
    chosen = options.read(texts)
    assert [chosen.litestream_https_proxy, chosen.litestream_no_proxy] == [*texts.values()]
