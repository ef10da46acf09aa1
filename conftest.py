"""Wiring: the plugins of this project."""

pytest_plugins = [
    "pytester",
    "fixtures.process",
    "fixtures.verdicts",
    "fixtures.record",
    "fixtures.sheet",
    "fixtures.terminal",
    "fixtures.matrix",
    "fixtures.against",
    "fixtures.draft",
    "fixtures.page.plugin",
    "fixtures.nouns",
    "fixtures.timing",
    "fixtures.selection",
    "fixtures.loading",
    "fixtures.real_weights",
    "fixtures.hardware",
    "fixtures.resume",
]
