"""The table of all recipes. In: a task and a recipe's name. Out: the recipe."""

from __future__ import annotations

from safemil.collection.recipes import bullet, learned_recipe, manipulation, navigation, pretrained, team, velocity
from safemil.collection.recipes.learned_recipe import LearnedRecipe
from safemil.collection.recipes.recipe import Recipe
from safemil.config.errors import UserError
from safemil.data.tasks import TASKS, Task

FAMILIES = tuple(
    module.RECIPES for module in (bullet, velocity, navigation, manipulation, team, pretrained, learned_recipe)
)

# task name -> recipe name -> recipe; a task's first recipe is the one to take
RECIPES: dict[str, dict[str, Recipe | LearnedRecipe]] = {
    task: recipes
    for task in TASKS
    if (recipes := {name: recipe for family in FAMILIES for name, recipe in family.get(task, {}).items()})
}


def find_recipe(task: Task, name: str | None = None) -> Recipe | LearnedRecipe:
    """The recipe called ``name`` of a task, or its first one. Raises ``UserError`` naming the ones that exist."""
    name = recipe_name(task, name)
    return RECIPES[task.name][name]


def recipe_name(task: Task, name: str | None = None) -> str:
    """``name``, if the task has such a recipe; without one, the name of its first."""
    recipes = RECIPES.get(task.name)
    if recipes is None:
        raise UserError(f"no recipe to collect {task.name} with yet; there are recipes for: {' '.join(RECIPES)}")
    if name is not None and name not in recipes:
        raise UserError(f"unknown recipe {name!r} for {task.name}: there is {' '.join(recipes)}")
    return name or next(iter(recipes))
