"""Parts of all web integrations: context by headers, features by route."""

from __future__ import annotations

from typing import Any

import pytest

from ts_autotrack.integrations._http import CONTEXT_HEADERS, FeatureRoutes, request_context

PHONE = "Mozilla/5.0 (Linux; Android 13; SM-S918B) AppleWebKit/537.36 Chrome/116.0 Mobile Safari/537.36"
TABLET = "Mozilla/5.0 (Linux; Android 12; SM-X906C) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/116.0 Safari/537.36"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 Safari/604.1"
IPAD = "Mozilla/5.0 (iPad; CPU OS 16_5 like Mac OS X) AppleWebKit/605.1.15 Version/16.5 Mobile/15E148 Safari/604.1"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"
TELEVISION = "Mozilla/5.0 (Linux; Android 9; BRAVIA 4K Android TV) AppleWebKit/537.36 Chrome/116.0 Safari/537.36"
ROBOT = "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"


@pytest.mark.parametrize(
    ("agent", "device"),
    [
        (PHONE, "mobile"),
        (IPHONE, "mobile"),
        (TABLET, "tablet"),
        (IPAD, "tablet"),
        (WINDOWS, "desktop"),
        (TELEVISION, None),
        (ROBOT, None),
        ("curl/8.0", None),
        ("", None),
        ("\x00\udcff" * 50_000, None),
    ],
)
def test_device_type_by_the_user_agent(agent: str, device: str | None) -> None:
    """Phones, tablets and computers are told apart; robots, televisions and senseless texts have no device type."""
    expected = {} if device is None else {"device_type": device}
    assert request_context({"user-agent": agent}) == expected


@pytest.mark.parametrize(
    ("mobile", "platform", "device"),
    [
        ("?1", '"Android"', "mobile"),
        ("?1", None, "mobile"),
        ("?0", '"Android"', "tablet"),
        ("?0", '"macOS"', "desktop"),
        ("?0", '"Unheard"', "tablet"),  # by the User-Agent
        ("nonsense", '"Windows"', "tablet"),
    ],
)
def test_client_hints_go_before_the_user_agent(mobile: str, platform: str | None, device: str) -> None:
    """Client Hints decide if they are clear; else the User-Agent does."""
    headers = {"sec-ch-ua-mobile": mobile, "user-agent": TABLET}
    if platform is not None:
        headers["sec-ch-ua-platform"] = platform
    assert request_context(headers) == {"device_type": device}


@pytest.mark.parametrize(
    ("referer", "referrer"),
    [
        ("https://example.com/pricing?token=secret#part", "https://example.com/pricing"),
        ("https://user:password@example.com/a@b?x", "https://example.com/a@b"),
        ("https://user:pass@word@example.com", "https://example.com"),
        ("https://[broken/?x", "https://[broken/"),
        ("android-app://com.example", "android-app://com.example"),
        ("?token=secret", None),
    ],
)
def test_referrer_keeps_no_secret(referer: str, referrer: str | None) -> None:
    """The referrer is the Referer header without query, fragment and credentials."""
    assert request_context({"referer": referer}) == ({} if referrer is None else {"referrer": referrer})


def test_no_other_header_is_read() -> None:
    """Addresses, cookies and identity headers are not asked for."""
    asked: list[str] = []

    class Headers(dict[str, str]):
        def get(self, name: str, default: Any = None) -> Any:
            asked.append(name)
            return default

    assert request_context(Headers()) == {}
    assert set(asked) <= set(CONTEXT_HEADERS) == {"referer", "sec-ch-ua-mobile", "sec-ch-ua-platform", "user-agent"}


def test_features_are_found_by_method_and_template() -> None:
    """A method of its own goes before `*`; other routes have no feature."""
    routes = FeatureRoutes({"POST /reports/{id}": "export", "* /reports/{id}": "report", "get  /search": "search"})
    assert routes
    assert not FeatureRoutes(None)
    assert routes.feature_of("POST", "/reports/{id}") == "export"
    assert routes.feature_of("DELETE", "/reports/{id}") == "report"
    assert routes.feature_of("GET", "/search") == "search"
    assert routes.feature_of("GET", "/other") is None


@pytest.mark.parametrize("key", ["/reports", "POST", "POST reports", "", " ", "P0ST /x", None])
def test_bad_key_of_a_feature_is_refused(key: str) -> None:
    """A key without a method or a template raises, and the message names the key."""
    with pytest.raises(ValueError, match="must be") as refused:
        FeatureRoutes({key: "name"})
    assert repr(key) in str(refused.value)


@pytest.mark.parametrize("name", ["", "  ", None, 3])
def test_bad_name_of_a_feature_is_refused(name: str) -> None:
    """A feature without a name raises, and the message names the key."""
    with pytest.raises(ValueError, match=r"GET /x.*non-empty text"):
        FeatureRoutes({"GET /x": name})
