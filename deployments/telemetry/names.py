"""every name of a span, an attribute or an event: OpenTelemetry's own for generative AI where it has one, else under `aiprod.`

A test holds the `gen_ai.` ones against the conventions that the SDK ships. None of them ever holds a prompt or a tenant.
"""

SERVICE = "aiprod"

# Spans. A request's is its route, or its RPC.
JOB = "generate_content {model}"  # as the conventions say: the operation, and the model
QUEUE = "queue"
ATTEMPT = "attempt"
ASSIGN = "assign"
STEP = "step {step}"
QUEUED = "queued"
FETCH = "fetch"
RUN = "run"
BATCH = "steps {first}-{last}"
PUBLISH = "publish"
WEBHOOK = "webhook"

# Attributes of the conventions for generative AI.
OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
MODEL = "gen_ai.request.model"
SEED = "gen_ai.request.seed"
OUTPUT_TYPE = "gen_ai.output.type"
RESPONSE_ID = "gen_ai.response.id"
FINISH_REASONS = "gen_ai.response.finish_reasons"
GENERATE_CONTENT, VIDEO = "generate_content", "video"  # of OPERATION and OUTPUT_TYPE, which takes other words than its own

# Of the general conventions.
ERROR = "error.type"
HTTP_METHOD, HTTP_ROUTE, HTTP_STATUS = "http.request.method", "http.route", "http.response.status_code"
RPC_SYSTEM, RPC_METHOD, RPC_STATUS = "rpc.system", "rpc.method", "rpc.response.status_code"

# Of AIPROD.
JOB_ID = "aiprod.job.id"
PIPELINE = "aiprod.pipeline"
STATUS = "aiprod.job.status"
ATTEMPTS = "aiprod.job.attempts"
COST = "aiprod.job.cost"
WAIT_SECONDS = "aiprod.job.wait_seconds"
ATTEMPT_NUMBER = "aiprod.attempt.number"
OUTCOME = "aiprod.attempt.outcome"
KEPT_STEPS = "aiprod.attempt.kept_steps"
DISPATCHER = "aiprod.dispatcher"
STEP_NAME = "aiprod.step.name"
STAGE = "aiprod.stage"
REPLICA = "aiprod.replica"
TOKENS = "aiprod.step.tokens"
NETWORK_CALLS = "aiprod.step.network_calls"
QUEUED_SECONDS = "aiprod.step.queued_seconds"
RUN_SECONDS = "aiprod.step.run_seconds"
FIRST_STEP, LAST_STEP, STEPS = "aiprod.steps.first", "aiprod.steps.last", "aiprod.steps.total"
TRY = "aiprod.webhook.try"

# Events.
STARTED = "aiprod.job.started"
