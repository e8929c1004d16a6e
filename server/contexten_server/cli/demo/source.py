"""The demonstration's data source: a small HTTP server on loopback that counts who asked for what."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any, ClassVar

HOLD_S = 20.0


@dataclass(slots=True)
class Tally:
    """What was asked for, counted by path; written by the server's threads, read by the demonstration."""

    requests: Counter[str] = field(default_factory=Counter)
    _news: threading.Condition = field(default_factory=threading.Condition)

    def count(self, path: str) -> int:
        """Note a request; answers how many there were for the path, with this one."""
        with self._news:
            self.requests[path] += 1
            self._news.notify_all()
            return self.requests[path]

    def await_request(self, path: str, timeout_s: float) -> bool:
        """Block until someone asked for the path; False where nobody did in time."""
        with self._news:
            return self._news.wait_for(lambda: self.requests[path] > 0, timeout_s)


class Source:
    """Serves `/years/<year>.json` and `/quarters/<year>-<1..4>.json` after a while, as a slow service would."""

    def __init__(self, *, delay_s: float, holds: str) -> None:
        """The first request for the path `holds` is not answered before `let_go` is set, or HOLD_S have passed."""
        self.delay_s = delay_s
        self.holds = holds
        self.let_go = threading.Event()
        self.tally = Tally()

    @cached_property
    def days(self) -> list[dict[str, Any]]:
        """The data set: one record a day."""
        text = files(__package__).joinpath("seattle-weather.csv").read_text(encoding="utf-8")
        return [
            {
                "date": row["date"].replace("/", "-"),
                "year": int(row["date"][:4]),
                "rain_mm": float(row["precipitation"]),
                "high_c": float(row["temp_max"]),
                "low_c": float(row["temp_min"]),
                "wind_m_s": float(row["wind"]),
                "weather": row["weather"],
            }
            for row in csv.DictReader(text.splitlines())
        ]

    def answer(self, path: str) -> list[dict[str, Any]] | None:
        """The records that a path stands for; None where it stands for none."""
        number = self.tally.count(path)
        time.sleep(self.delay_s)
        if (path, number) == (self.holds, 1):
            self.let_go.wait(HOLD_S)
        kind, _, name = path.strip("/").removesuffix(".json").partition("/")
        if kind == "years":
            found = [day for day in self.days if str(day["year"]) == name]
        elif kind == "quarters":
            year, _, quarter = name.partition("-")
            found = [
                day
                for day in self.days
                if str(day["year"]) == year and str((int(day["date"][5:7]) + 2) // 3) == quarter
            ]
        else:
            found = []
        return found or None

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve on a free port of loopback; answers `host:port`."""

        class Handler(BaseHTTPRequestHandler):
            source: ClassVar[Source] = self

            def do_GET(self) -> None:
                found = self.source.answer(self.path)
                body = json.dumps(found if found is not None else {"error": "no such data"}).encode()
                self.send_response(200 if found is not None else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                return

        server = _QuietServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="demo source")
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed in mid-request is what the demonstration shows, not an error of the source."""
