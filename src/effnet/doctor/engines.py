"""Check of what ``--engine auto`` has measured here."""

from collections.abc import Iterator
from dataclasses import asdict

from effnet.doctor.finding import Finding
from effnet.runtime.engine_choices import EngineChoices
from effnet.runtime.processor import cpu_model

_SHOWN = 5


def check_engine_choices() -> Iterator[Finding]:
    """Report the engines that are kept as the fastest ones on this processor, the latest first."""
    kept = EngineChoices()
    here = {key: found for key, found in kept.all().items() if found.is_usable and cpu_model() in key}
    latest = list(reversed(here.items()))
    for key, found in latest[:_SHOWN]:
        model = key.partition(";")[0]
        facts = {"key": key, **asdict(found)}
        yield Finding("engine", "ok", f"{model}: {found.told()}, measured on {found.measured}", facts=facts)
    if len(latest) > _SHOWN:
        yield Finding("engine", "ok", f"and {len(latest) - _SHOWN} more in {kept.path}")
    if not latest:
        text = "nothing is kept of the measurements that --engine auto makes"
        yield Finding("engine", "absent", text)
