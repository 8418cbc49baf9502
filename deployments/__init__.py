"""requests over HTTP -> plans walked over Ray Serve deployments: the only package that knows Ray and FastAPI"""
