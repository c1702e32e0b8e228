"""The official JavaScript client's journeys, unchanged, against the deployed stack."""

from journey import test_javascript
from journey.test_javascript import *  # noqa: F403

# The dev mode looks for a server of the local kind, with its public token.
for _name in [name for name in vars(test_javascript) if name.startswith("test_dev_mode")]:
    del globals()[_name]
