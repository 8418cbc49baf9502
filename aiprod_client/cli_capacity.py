"""`aiprod capacity …` -> how many replicas of each stage a traffic needs, what they cost, what breaks first; and the stage times for it

What this imports of the server it imports where it is needed: Ray takes seconds, and help answers at once.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aiprod_client.client import Client
from aiprod_client.exits import AsJson, ServerUrl, err, group, print_json, told
from aiprod_client.server import ROOT
from aiprod_components.errors import AiprodError, InvalidRequestError

EXAMPLES = ROOT / "examples" / "capacity" / "miniature"
MOST_JOBS = 1000  # that a calibration looks at

capacity = group("capacity", help="Size a deployment before it is bought: replicas per stage, cost per 1,000 videos, what breaks first.")

TrafficFile = Annotated[Path | None, typer.Option("--traffic", help="Who asks for what, and when: a YAML file (docs/capacity.md).")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Write the planned serve config into this file.")]
Config = Annotated[Path, typer.Option("--config", help="The serve config that is planned for: families, slots, and all else that stays.")]


@capacity.callback(invoke_without_command=True, no_args_is_help=False)
@told()
def plan(
    context: typer.Context,
    traffic: TrafficFile = None,
    slo: Annotated[str, typer.Option(help="What is promised: p95=60s, or more with commas between.")] = "p95=60s",
    times: Annotated[Path, typer.Option(help="What each stage takes: a YAML file.")] = EXAMPLES / "times.yaml",
    pools: Annotated[Path, typer.Option(help="Where each stage runs, and its price: a YAML file.")] = EXAMPLES / "pools.yaml",
    config: Config = ROOT / "serve_config.yaml",
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a traffic and answer the fewest replicas that keep a promise. Exit code 1: none do."""
    if context.invoked_subcommand is not None:
        return
    if traffic is None:
        example = "examples/capacity/miniature/traffic.yaml"
        raise InvalidRequestError(f"traffic is missing; name a file with --traffic, such as {example}", field="traffic")
    if output is not None and not output.parent.is_dir():
        raise InvalidRequestError(f"folder {output.parent} does not exist; make it first", field="output")
    report = _planned(traffic, slo=slo, times=times, pools=pools, config=config, output=output)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report["holds"]:
        raise AiprodError(f"{report['slo']} does not hold: {'; '.join(report['faults'])}")


def _planned(traffic: Path, *, slo: str, times: Path, pools: Path, config: Path, output: Path | None) -> dict[str, Any]:
    with err.status("simulating"):
        from deployments.capacity.plan import make_plan
        from deployments.capacity.pools import Pools
        from deployments.capacity.reading import read_yaml
        from deployments.capacity.report import report_of, sizes_of
        from deployments.capacity.served import read_served, with_sizes, write_config
        from deployments.capacity.setting import Setting
        from deployments.capacity.slo import parse_slo
        from deployments.capacity.times import Times
        from deployments.capacity.traffic import Traffic

        promised, asked = parse_slo(slo), Traffic.load(traffic)
        served = read_served(config)
        setting = Setting(asked, served.families, read_yaml(times, Times), read_yaml(pools, Pools), served.slots)
        made = make_plan(setting, promised)
        report = report_of(made, served)
    if output is not None:
        comment = f"Written by `aiprod capacity` for the traffic {asked.name} and {slo}: {config.name} with what was planned."
        write_config(with_sizes(served, sizes_of(made), setting.pools), output, comment=comment)
        report["output"] = str(output)
        from deployments.settings import check_config, load_config

        # Without its folders a config cannot be checked whole.
        (load_config if served.absent else check_config)(output)
    return report


@capacity.command()
@told()
def calibrate(
    output: Annotated[Path, typer.Option("--output", "-o", help="The times file to write.")],
    result: Annotated[Path | None, typer.Option("--result", help="A load test's JSON; with the jobs' stages or ids in its rows.")] = None,
    traffic: TrafficFile = None,
    pools: Annotated[Path, typer.Option(help="Where each stage ran: whether stages shared cores.")] = EXAMPLES / "pools.yaml",
    config: Config = ROOT / "serve_config.yaml",
    server: ServerUrl = None,
    as_json: AsJson = False,
) -> None:
    """Measure stage times: from a load test and its traffic, or from the finished videos of a server."""
    from deployments.capacity.calibrate import calibrate_from_jobs, calibrate_from_result, write_times
    from deployments.capacity.pools import Pools
    from deployments.capacity.reading import read_yaml
    from deployments.capacity.served import read_served
    from deployments.capacity.traffic import Traffic

    if not output.parent.is_dir():
        raise InvalidRequestError(f"folder {output.parent} does not exist; make it first", field="output")
    if (result is None) != (traffic is None):
        raise InvalidRequestError("--result and --traffic belong together: give both, or neither to ask a server", field="result")
    served = read_served(config)
    if result is not None and traffic is not None:
        with Client(server) as client:
            found = calibrate_from_result(
                _read_json(result), Traffic.load(traffic), served, read_yaml(pools, Pools), stages_of=lambda video: _stages(client, video)
            )
    else:
        with Client(server) as client:
            jobs = [job.record for job, _ in zip(client.iterate(), range(MOST_JOBS), strict=False)]
        found = calibrate_from_jobs(jobs, served, source=f"{len(jobs)} videos of {client.base_url}")
    write_times(found.times, output)
    if as_json:
        print_json({"output": str(output), "used": found.used, "passed_over": found.passed_over, "times": found.times.model_dump()})
    else:
        err.print(f"{output}: from {found.used} videos, {found.passed_over} passed over", soft_wrap=True, markup=False)


def _stages(client: Client, video: str) -> list[dict[str, Any]]:
    return list(client.retrieve(video).record.get("stages", []))


def _read_json(path: Path) -> Any:
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequestError(f"result: {path} cannot be read ({error.strerror}); name a load test's JSON", field="result") from error
    except ValueError as error:
        raise InvalidRequestError(f"result: {path} is not JSON: {error}", field="result") from error


def _print(report: dict[str, Any]) -> None:
    console = Console(soft_wrap=True)
    console.print(_stages_table(report))
    console.print(_pools_table(report))
    for line in _lines(report):
        console.print(escape(line))


def _stages_table(report: dict[str, Any]) -> Table:
    table = Table("family", "stage", "pool", box=None)
    for number in ("replicas", "busy", "wait a video"):
        table.add_column(number, justify="right")
    for stage in report["stages"]:
        numbers = str(stage["replicas"]), f"{stage['utilisation']:.0%}", f"{stage['wait_seconds']:.2f} s"
        table.add_row(stage["family"], stage["stage"], stage["pool"], *numbers)
    return table


def _pools_table(report: dict[str, Any]) -> Table:
    table = Table("pool", "of", box=None)
    for number in ("count", "an hour"):
        table.add_column(number, justify="right")
    for pool in report["pools"]:
        table.add_row(pool["name"], pool["kind"], str(pool["count"]), f"{pool['cost_per_hour']:.2f}")
    return table


def _lines(report: dict[str, Any]) -> list[str]:
    latency = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in report["latency_seconds"].items())
    lines = [
        f"{report['arrivals']:,} arrivals in {report['seconds']:g} s: {latency}; {report['throughput_per_minute']:.4g} videos a minute",
        f"{report['slo']} {'holds' if report['holds'] else 'does not hold'}",
        f"{report['cost_per_hour']:.2f} an hour, {report['cost_per_1000_videos']:.2f} for 1,000 videos",
        _breaks(report["breaks_first"]),
        *([] if report["monolith"] is None else [_monolith(report["monolith"])]),
        f"stage times: {report['sources']['times']}",
        *report["notes"],
    ]
    return [*lines, f"written: {report['output']}"] if "output" in report else lines


def _breaks(breaks: dict[str, Any]) -> str:
    if breaks["factor"] is None:
        return f"nothing breaks up to {breaks['tried_up_to']:g} times the traffic"
    return f"breaks first: {breaks['stage']}, at {breaks['factor']:.3g} times the traffic ({'; '.join(breaks['faults'])})"


def _monolith(monolith: dict[str, Any]) -> str:
    if monolith["cannot"] is not None:
        return f"monolith replicas on {monolith['accelerator']}: none; {monolith['cannot']}"
    ratio = monolith["pools_cost_of_it"]
    beside = "" if ratio is None else f"; pools cost {ratio:.2f} of that"
    return (
        f"monolith replicas on {monolith['accelerator']}: {monolith['replicas']}, {monolith['cost_per_1000_videos']:.2f} for 1,000 videos, "
        f"p95 {monolith['latency_seconds']['p95']:.3g} s{beside}"
    )
