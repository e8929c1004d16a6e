"""What every test shares: the event loop, and that nothing is skipped where nothing may be."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import pytest
import sniffio
from hypothesis import HealthCheck, settings

# How long an example takes says nothing on a machine that others load, and `make test` finds today what it found
# yesterday; `make chaos` draws others each time.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=os.environ.get("CONTEXTEN_CHAOS") != "full",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """aiosqlite needs asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def _ctrl_c_is_heard() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and with it all that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_loop_is_said_to_run() -> None:
    """A test may run a loop of its own while a fixture of many tests keeps another: sniffio tells of that one."""
    sniffio.current_async_library_cvar.set(None)


@pytest.fixture(autouse=True, scope="session")
def _no_settings_of_the_developer(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Tests read no settings file from the user's configuration folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


def _refuses_skips(item: pytest.Item | pytest.Collector) -> bool:
    return os.environ.get("CONTEXTEN_REQUIRE_ALL") == "1" and item.get_closest_marker("opt_in") is None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a skipped test where CONTEXTEN_REQUIRE_ALL=1 says that this machine must run all of them, but for those that
    are marked `opt_in`."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and _refuses_skips(item):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and CONTEXTEN_REQUIRE_ALL=1 allows no skip: {call.excinfo}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself as a whole."""
    report = yield
    if report.skipped and _refuses_skips(collector):
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped as a whole, and CONTEXTEN_REQUIRE_ALL=1 allows no skip"
    return report
