"""
What becomes of the faults that people report of such software: `python tests/reports.py [arguments of pytest]`.

Tests that try such a report are marked `@pytest.mark.report("what was reported")`; the first line of their docstring
says what happens now. Prints each report with those lines, `ok` where the test passes.
"""

import sys
from pathlib import Path

import pytest


class Reports:
    """Plugin of pytest that gathers, for each report, the nodes of its tests and how they ended."""

    def __init__(self) -> None:
        self.groups: dict[str, dict[str, list[str]]] = {}  # report → what happens → nodes
        self.outcomes: dict[str, str] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            documentation = getattr(item.function, "__doc__", None) or item.name.replace("_", " ")
            behaviour = documentation.strip().splitlines()[0]
            for marker in item.iter_markers("report"):
                self.groups.setdefault(marker.args[0], {}).setdefault(behaviour, []).append(item.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def lines(self) -> list[str]:
        lines = []
        for group, behaviours in sorted(self.groups.items()):
            lines.append(group)
            for behaviour, nodes in behaviours.items():
                outcomes = {self.outcomes.get(node, "not run") for node in nodes} - {"passed"}
                lines.append(f"    {', '.join(sorted(outcomes)) or 'ok'}: {behaviour}")
        return [*lines, f"{len(self.groups)} reports"]


def main(arguments: list[str]) -> int:
    reports = Reports()
    folder = str(Path(__file__).parent)
    sys.path.insert(0, str(Path(folder).parent))  # as `python -m pytest` does: tests of lab/ import it
    code = pytest.main(["-q", "--no-header", "--no-summary", "-m", "report", *(arguments or [folder])], [reports])
    print("\n".join(reports.lines()))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
