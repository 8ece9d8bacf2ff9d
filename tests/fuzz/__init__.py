"""``make fuzz``: random inputs for everything that somebody outside can send.

A target is a strategy that generates inputs and a function that raises an exception for a finding
(:class:`~tests.fuzz.running.Target`). Hypothesis reduces a finding to a short input, which then
becomes a literal test. pytest does not collect these modules.
"""
