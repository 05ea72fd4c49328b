"""The report on a set of trainings: checks, published figures, findings; as sections and as figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.study import drawings, tables
from bench.study.claims import Reproduced, reproduce
from bench.study.findings import Findings, find
from bench.study.quality import FENCE, Check, Cleaned, check, clean
from bench.study.runs import ENERGY, Run
from bench.study.sections import Part, Section, Text
from optimizer.telemetry import EnergySource
from server.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Study:
    """A set of trainings with everything that was found in it."""

    runs: tuple[Run, ...]
    checks: tuple[Check, ...]
    cleaned: Cleaned
    claims: tuple[Reproduced, ...]
    findings: Findings


def examine(runs: Sequence[Run], least_f1: float = 0.0, fence: float = FENCE) -> Study:
    """Check, clean and compare. Raises ConfigError when nothing is left to compare."""
    cleaned = clean(runs, least_f1, fence)
    if not cleaned.kept:
        raise ConfigError(f"no run reaches F1 {least_f1:g}: lower --least-f1, or train for longer")
    claims = reproduce(runs, cleaned.kept, least_f1)
    return Study(tuple(runs), check(runs), cleaned, claims, find(cleaned.kept))


def sections_of(study: Study) -> tuple[Section, ...]:
    """Return the report in the order in which it is read."""
    found, kept = study.findings, study.cleaned.kept
    parts: dict[str, Sequence[Part]] = {
        "Energy": (_energy(study),),
        "Published figures": tables.claims(study.claims),
        "The data": (tables.checks(study.checks), *tables.dropped(study.cleaned)),
        "Networks, devices, batch sizes": (tables.cells(found), *drawings.batch_sizes(found)),
        "What the network saves": (
            tables.exchanges(found),
            *tables.compared("Networks", found.architectures),
        ),
        f"Is a better F1 worth its {found.measure}?": (
            tables.related(f"Spearman: F1 against {found.measure}", found.correctness),
            *drawings.correctness(kept),
        ),
        f"Do FLOPs tell {found.measure}?": (
            tables.related(f"Spearman: FLOPs against {found.measure}", found.flops),
            *drawings.flops(kept),
        ),
        "Does the device fit the network?": (
            *tables.fits(found),
            *tables.compared("Devices", found.devices),
            *drawings.fit(kept),
        ),
        "What the batch size does": tables.compared("Batch sizes", found.batch_sizes),
    }
    return tuple(Section(heading, tuple(own)) for heading, own in parts.items() if own)


def figures_of(study: Study) -> dict[str, Any]:
    """Return everything that was found, for a file; the runs themselves are where they were read from."""
    return {
        "compared": len(study.cleaned.kept),
        "dropped": [(*one.run.cell, one.run.number, one.reason) for one in study.cleaned.dropped],
        "checks": study.checks,
        "claims": [asdict(claim) | {"held": claim.held} for claim in study.claims],
        "findings": study.findings,
    }


def _energy(study: Study) -> Text:
    sources = sorted({run.energy.source.value for run in study.runs})
    if study.findings.measure == ENERGY.name:
        simulated = EnergySource.SIMULATED.value in sources
        shared = (
            " RAPL counts the whole package, whoever used it." if EnergySource.RAPL.value in sources else ""
        )
        return Text(f"Energy is of the device, source: {', '.join(sources)}.{shared}", warning=simulated)
    unmeasured = sum(run.energy.joules is None for run in study.runs)
    return Text(
        f"Energy was not measured in {unmeasured} of {len(study.runs)} runs: time per image is compared in"
        " its place. What holds for time need not hold for energy.",
        warning=True,
    )
