"""Wiring: the plugins of this project."""

pytest_plugins = [
    "pytester",
    "fixtures.claims.runtime",
    "fixtures.verdicts.judge",
    "fixtures.report.record",
    "fixtures.report.sheet",
    "fixtures.report.terminal",
    "fixtures.claims.limits",
    "fixtures.claims.parametrize",
    "fixtures.report.compare",
    "fixtures.report.draft",
    "fixtures.report.page.plugin",
    "fixtures.claims.parts",
    "fixtures.timings.plugin",
    "fixtures.claims.selection",
    "fixtures.claims.quantized_models",
    "fixtures.claims.real_weights",
    "fixtures.claims.gpu",
    "fixtures.report.memory_table",
    "fixtures.report.drift",
    "fixtures.report.resume",
]
