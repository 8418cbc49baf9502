"""a request -> a row that a dispatcher claims, holds by a lease and finishes once -> a video, an event, or why there is none

    store.py        what callers see: JobStore              admission.py   may this job enter?
    keys.py         API keys; tenants.py: their limits      fairness.py    whose turn is it, and who is how far from it?
    outbox.py       webhooks that are due                   transitions.py what may follow what, and the fence around it
    kept.py         finished steps in the artifact store    database.py    SQLite or PostgreSQL, brought up to date
    live.py         what live jobs still want; stock.py: how many there are; analytics.py: what became of those that ended

One table per noun, plain SQL, no broker. Everything here blocks: call it in a thread.
"""
