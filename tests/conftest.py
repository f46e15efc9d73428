"""Settings of all tests: how long an example takes says more about the machine than about the code."""

from hypothesis import HealthCheck, settings

settings.register_profile("unistream", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unistream")
