"""scratch"""
import time, httpx, traceback
def test_scratch(graph):
    print("READY in", graph.seconds_to_ready)
    c = graph.client()
    for d in [dict(prompt="a red ball", num_frames=5, size="64x64", num_inference_steps=2, seed=3)]*1:
        t = time.time(); r = c.post("/v1/videos/sync", json=d); print(r.status_code, r.headers, len(r.content), time.time()-t)
        if r.status_code != 200: print(r.text)
    r = c.post("/v1/videos/sync", json=dict(prompt="")); print(r.status_code, r.headers, r.text)
    r = c.get("/readyz"); print(r.text)
    r = c.get("/nope"); print(r.status_code, r.text)
    r = c.post("/v1/plans", json=dict(prompt="x")); print(r.status_code, r.text[:300])
    r = c.get("/v1/models"); print(r.status_code, r.text[:300])
    r = c.get("/docs"); print(r.status_code, r.text[:100])
    r = c.get("/openapi.json"); print(r.status_code, r.text[:1000])
    try:
        r = c.post("/v1/videos/sync", content=b"x"*26_000_000, headers={"content-type": "application/json"}); print(r.status_code, r.text[:1000])
    except Exception: traceback.print_exc()
    import ray, glob, os
    d = ray._private.worker._global_node.get_session_dir_path()
    for f in glob.glob(d + "/logs/serve/*ingress*") + glob.glob(d + "/logs/serve/*text_enc*"):
        print("==", f); print(open(f).read()[-6000:])
