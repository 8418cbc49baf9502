"""python -m aiprod_components.training RECIPE.yaml [--folder runs/NAME] [--output FOLDER] [key=value ...]"""

import argparse
from pathlib import Path

import yaml

from aiprod_components.families.miniature import SHIPPED_WEIGHTS
from aiprod_components.training.objectives import COMPONENTS
from aiprod_components.training.trainer import Solved, Trainer


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m aiprod_components.training", description="Run a training recipe; it resumes where it stopped."
    )
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--folder", type=Path, help="checkpoints and log (default: runs/RECIPE)")
    parser.add_argument("--output", type=Path, default=SHIPPED_WEIGHTS, help="where the weights are written at the end")
    parser.add_argument("overrides", nargs="*", help="e.g. schedule.steps=100 device=cuda")
    arguments = parser.parse_intermixed_args()
    record = yaml.safe_load(arguments.recipe.read_text())
    for override in arguments.overrides:
        path, _, value = override.partition("=")
        *parents, leaf = path.split(".")
        target = record
        for parent in parents:
            target = target[parent]
        target[leaf] = yaml.safe_load(value)
    recipe_class, objective_class = COMPONENTS[record["component"]]
    recipe = recipe_class.model_validate(record)
    objective = objective_class(recipe, output=arguments.output)
    if isinstance(objective, Solved):
        objective.solve()
        return
    folder = arguments.folder or Path("runs") / arguments.recipe.stem
    Trainer(objective, recipe, folder=folder).run()


main()
