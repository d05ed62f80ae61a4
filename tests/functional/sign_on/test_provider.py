"""Signing on by the company's provider, which is another platform of ours in a process of its own."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml

from haneul.kernel.hash_chain import verify
from tests.functional.sign_on.browser import OWN_SECRET
from tests.functional.sign_on.processes import Platform, running_platform


class Company:
    """A platform, and the company's provider that it trusts."""

    def __init__(self, cloud: Platform, corporate: Platform) -> None:
        self.cloud = cloud
        self.corporate = corporate

    def sign_on(self, http: httpx2.Client, name: str) -> httpx2.Response:
        """Sign on at the cloud through the provider; return what the cloud shows in the end."""
        start = http.get(f"{self.cloud.origin}/oidc/provider", params={"page": "device", "query": ""})
        assert start.status_code == 303, start.text
        page = self.corporate.visit(http, start.headers["location"], name)
        answer = page if page.status_code == 303 else self.corporate.submit(http, page, "confirm", decision="allow")
        back = http.get(answer.headers["location"])
        return http.get(self.cloud.origin + back.headers["location"]) if back.status_code == 303 else back

    def token(self, person: str) -> str:
        return str(self.cloud.admin("POST", f"/people/{person}/tokens", {})["secret"])

    def whoami(self, token: str) -> httpx2.Response:
        with self.cloud.browser() as http:
            return http.get(f"{self.cloud.origin}/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    folder = tmp_path_factory.mktemp("company")
    with running_platform(folder / "corporate") as corporate:
        # Where the cloud will be reached is known once it runs; the client's address is registered then.
        settings = {
            "name": "the company",
            "issuer": f"{corporate.origin}/oidc",
            "clientId": "cloud",
            "clientSecretFile": str(folder / "secret"),
            "authorityFile": str(corporate.authority),
            "allowedDomains": ["example.com"],
            "emailIsVerified": True,
        }
        (folder / "provider.yaml").write_text(yaml.safe_dump(settings))
        with running_platform(folder / "cloud", folder / "provider.yaml") as cloud:
            body = {"id": "cloud", "redirectUris": [f"{cloud.origin}/oidc/provider/callback"]}
            (folder / "secret").write_text(corporate.admin("POST", "/clients", body)["secret"] + "\n")
            both = folder / "both.crt"
            both.write_bytes(cloud.authority.read_bytes() + corporate.authority.read_bytes())
            cloud.authority = corporate.authority = both
            yield Company(cloud, corporate)


def actions(company: Company, person: str) -> list[str]:
    records: Any = company.cloud.admin("GET", f"/audit?person={person}")["items"]
    return [record["action"] for record in records]


def test_a_colleague_signs_on_and_is_in_the_groups_that_the_provider_says(company: Company) -> None:
    company.corporate.add("carol")
    company.corporate.admin("POST", "/groups", {"name": "shop-people"})
    company.corporate.admin("PUT", "/groups/shop-people/members/carol")
    company.cloud.admin("POST", "/groups", {"name": "shop", "external": "shop-people"})
    company.cloud.admin("POST", "/groups", {"name": "other", "external": "other-people"})
    with company.cloud.browser() as http:
        assert "Sign on with the company" in http.get(f"{company.cloud.origin}/oidc/device").text
        assert "Let a device in" in company.sign_on(http, "carol").text
    assert company.cloud.admin("GET", "/groups/shop/members") == ["carol"]
    assert company.cloud.admin("GET", "/groups/other/members") == []
    assert company.whoami(company.token("carol")).json()["groups"] == ["shop"]
    company.corporate.admin("DELETE", "/groups/shop-people/members/carol")
    with company.cloud.browser() as http:
        company.sign_on(http, "carol")
    assert company.cloud.admin("GET", "/groups/shop/members") == []


def test_who_leaves_the_company_loses_everything_within_a_minute(company: Company) -> None:
    company.corporate.add("dave")
    with company.cloud.browser() as http:
        company.sign_on(http, "dave")
        token = company.token("dave")
        assert company.whoami(token).status_code == 200
        company.corporate.admin("PATCH", "/people/dave", {"disabled": True})
        began = time.monotonic()
        while company.whoami(token).status_code == 200:
            assert time.monotonic() - began < 60
            time.sleep(0.5)
        # The browser too, and a renewed account at the provider alone brings nothing back.
        assert "<h1>Sign on" in http.get(f"{company.cloud.origin}/oidc/device").text
    company.corporate.admin("PATCH", "/people/dave", {"disabled": False})
    assert company.whoami(token).status_code == 401
    assert "provider.refuse" in actions(company, "dave")
    with company.cloud.browser() as http:
        company.sign_on(http, "dave")
    assert company.whoami(token).status_code == 200


def test_who_is_disabled_here_is_out_whatever_the_provider_says(company: Company) -> None:
    company.corporate.add("erin")
    with company.cloud.browser() as http:
        company.sign_on(http, "erin")
    company.cloud.admin("PATCH", "/people/erin", {"disabled": True})
    with company.cloud.browser() as http:
        page = company.sign_on(http, "erin")
    assert (page.status_code, "may not sign on" in page.text) == (401, True)


def test_nobody_becomes_a_person_that_is_here_already(company: Company) -> None:
    company.cloud.admin("POST", "/people", {"name": "frank"})
    company.corporate.add("frank")
    with company.cloud.browser() as http:
        page = company.sign_on(http, "frank")
        assert (page.status_code, "may be somebody else" in page.text) == (409, True)
        company.cloud.admin("PUT", "/people/frank/provider-link", {"subject": "frank"})
        assert "Let a device in" in company.sign_on(http, "frank").text


def test_addresses_of_other_domains_are_not_let_in(company: Company) -> None:
    company.corporate.admin("POST", "/people", {"name": "grace", "email": "grace@elsewhere.test"})
    company.corporate.new_secret("grace")
    with company.cloud.browser() as http:
        page = company.sign_on(http, "grace")
    assert (page.status_code, "no domain that is let in" in page.text) == (401, True)
    assert "grace" not in [person["name"] for person in company.cloud.admin("GET", "/people")]


def test_an_answer_is_good_once_in_the_browser_that_asked(company: Company) -> None:
    company.corporate.add("heidi")
    with company.cloud.browser() as http, company.cloud.browser() as other:
        start = http.get(f"{company.cloud.origin}/oidc/provider", params={"page": "device", "query": ""})
        answer = company.corporate.visit(http, start.headers["location"], "heidi")
        assert answer.status_code == 303
        stolen = other.get(answer.headers["location"])
        assert (stolen.status_code, "not started in this browser" in stolen.text) == (401, True)
        # It was used up by the attempt.
        assert http.get(answer.headers["location"]).status_code == 401


def test_an_answer_of_another_issuer_is_refused(company: Company) -> None:
    with company.cloud.browser() as http:
        start = http.get(f"{company.cloud.origin}/oidc/provider", params={"page": "device", "query": ""})
        state = httpx2.URL(start.headers["location"]).params["state"]
        answer = {"state": state, "code": "x", "iss": "https://evil.test"}
        page = http.get(f"{company.cloud.origin}/oidc/provider/callback", params=answer)
    assert (page.status_code, "another provider" in page.text) == (401, True)


def test_both_chains_are_whole_in_the_end(company: Company) -> None:
    for platform in (company.cloud, company.corporate):
        records = platform.admin("GET", "/audit?order=oldest&limit=500")["items"]
        assert verify(records).fault == ""
        assert OWN_SECRET not in json.dumps(records)
