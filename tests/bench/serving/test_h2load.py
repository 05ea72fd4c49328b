from __future__ import annotations

import subprocess

import pytest

from bench.serving import h2load
from bench.serving.h2load import Report, read_report
from bench.serving.processes import ServerFailed

REPORT = """starting benchmark...
spawning thread #0: 8 total client(s). Timing-based test with 1s of warm-up time and 3s of main duration
finished in 3.00s, 1447.33 req/s, 1.02MB/s
requests: 4342 total, 4342 started, 4340 done, 4340 succeeded, 2 failed, 2 errored, 0 timeout
status codes: 4340 2xx, 0 3xx, 0 4xx, 0 5xx
"""


def test_its_report_is_read() -> None:
    assert read_report(REPORT) == Report(done=4340, failed=2, requests_per_s=1447.33)


@pytest.mark.parametrize("said", ["", "h2load: bad option", REPORT.replace("req/s", "calls/s")])
def test_another_report_is_an_error(said: str) -> None:
    with pytest.raises(ServerFailed, match="something unknown"):
        read_report(said)


@pytest.mark.skipif(not h2load.available(), reason="h2load, of Debian's nghttp2-client, is not installed")
def test_the_installed_h2load_reports_so() -> None:
    done = subprocess.run(
        ["h2load", "-c", "1", "-m", "1", "-n", "1", "http://127.0.0.1:1/"], capture_output=True, text=True
    )
    report = read_report(done.stdout)
    assert (report.done, report.failed) == (0, 1)
