"""THE GRAPH on one page: arguments -> deployments -> applications

    miniature: family ── text_encoder, vae_encoder, denoiser, upsampler, refiner, vae_decoder      one application per family
                         (prompt_enhancer, where the family names a language model)
    api:       ingress ── dispatcher ── finds the stages by (application, deployment); they report to it

Each stage is a deployment of its own, scaled alone in `serve_config.yaml`. What feeds what is no business of the graph: a plan says it.
"""

from ray import serve
from ray.serve.handle import DeploymentHandle

from aiprod_components.plan import Plan
from aiprod_components.stages import stages_of
from deployments.api.ingress import Ingress
from deployments.dispatcher import Dispatcher
from deployments.envelope import Sealed
from deployments.runner import run_plan
from deployments.settings import DISPATCHER, FAMILY, INGRESS, ApiArgs, FamilyArgs, check_config
from deployments.stage import StageReplica

__all__ = ["ApiArgs", "FamilyArgs", "api", "check_config", "default_api", "default_family", "family"]


class FamilyRoot:
    """Ties a family's stages into one application; by handle, the whole family is one call."""

    def __init__(self, **stages: DeploymentHandle) -> None:
        self._stages = stages

    async def run(self, plan: Plan) -> Sealed:
        return await run_plan(plan, handles=self._stages)


def family(args: FamilyArgs) -> serve.Application:
    """A family's stages, each a deployment by its own name, behind one root."""
    stages = {stage: serve.deployment(name=stage)(StageReplica).bind(args, stage) for stage in stages_of(args.make())}
    return serve.deployment(name=FAMILY)(FamilyRoot).bind(**stages)


def api(args: ApiArgs) -> serve.Application:
    """The face of the families, and who works for it."""
    dispatcher = serve.deployment(name=DISPATCHER)(Dispatcher).bind(args)
    return serve.deployment(name=INGRESS)(Ingress).bind(args, dispatcher)


# `serve build` takes applications only, not builders.
default_family = family(FamilyArgs(name="miniature"))
default_api = api(ApiArgs(families=[FamilyArgs(name="miniature")]))
