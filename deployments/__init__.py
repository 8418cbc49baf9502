"""requests over HTTP -> plans walked over Ray Serve deployments: the only package that knows Ray and FastAPI"""

import os

# Stages are processes that share a machine's cores. A thread that waits for its siblings by spinning takes the core that they wait for: on
# two cores eight videos at once took twice as long. OpenMP reads this when torch is loaded, which nothing before this package does.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
