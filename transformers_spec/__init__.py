"""The specification as a library: `check` runs the claims on a release and returns the record.

import transformers_spec

record = transformers_spec.check("facebook/opt-125m")
print(record.model.facts.family, record.counts)
for result in record.of("fails"):
    print(result.claim, result.reason)
"""

from transformers_spec.record import Claim, Facts, Model, Record, Result, Suite, Verdict
from transformers_spec.run import CheckError, check

__all__ = ["CheckError", "Claim", "Facts", "Model", "Record", "Result", "Suite", "Verdict", "check"]
