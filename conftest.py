"""Wiring: the plugins of this project, in the order in which pytest asks them last."""

PLUGINS = """
    claims.runtime verdicts.judge report.record report.sheet claims.workers claims.selection
    report.progress report.terminal claims.limits claims.trained_models claims.parametrize
    report.compare report.draft report.page.plugin claims.parts timings.plugin
    claims.quantized_models claims.real_weights claims.release_files claims.gguf_files claims.adapters
    claims.classifier claims.tagged_words claims.gpu report.memory_table report.drift report.resume survey.plugin
"""
pytest_plugins = ["pytester", *(f"fixtures.{name}" for name in PLUGINS.split())]
