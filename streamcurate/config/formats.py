"""Configuration files: YAML read without surprises, and the flat format of the method's authors turned into our own."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamcurate.config.checks import choice, is_list, known_keys, whole_number
from streamcurate.errors import ConfigError

# The flat format (facebookresearch/ssl-data-curation): one key per option, one value per level.
_FLAT_KEYS = (
    "n_levels",
    "n_clusters",
    "n_splits",
    "n_iters",
    "n_resampling_steps",
    "sample_size",
    "sampling_strategy",
    "subset_indices_path",
)
# Not theirs; taken in a flat file all the same, since their format has no word for them.
_FLAT_EXTRA_KEYS = ("metric", "seed")
_FLAT_STRATEGIES = {"c": "closest", "r": "random", "closest": "closest", "random": "random"}
_LAUNCH_KEYS = ("nnodes", "ngpus_per_node", "ncpus_per_gpu", "cpus_per_task", "slurm_partition", "use_torchrun")
_TUNING_KEYS = ("dtype", "high_precision", "chunk_size", "checkpoint_period", "sort_cluster_checkpoint_period")
_PLACE_KEYS = ("embeddings_path", "data_path", "exp_dir")
_IGNORED_KEYS = {
    _LAUNCH_KEYS: "streamcurate launches no cluster jobs",
    _TUNING_KEYS: "labels are exact and every iteration is kept without them",
    _PLACE_KEYS: "the places given to the command count",
}
_MOST = 2**63 - 1


def is_flat(mapping: Mapping[Any, Any]) -> bool:
    """Whether a mapping is in the flat format of the method's authors."""
    return "levels" not in mapping and any(key in mapping for key in _FLAT_KEYS)


def flat_to_own(mapping: Mapping[Any, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Turn the flat format into ours.

    Parameters
    ----------
    mapping : mapping
        The keys of a flat file. A value per level may be a list, or one value for all levels. ``n_resampling_steps``
        counts the first fit there, so that 10 is ``steps: 9`` in ours and 1 is no resampling. A relative
        ``subset_indices_path`` is taken relative to the working directory, not to the file.

    Returns
    -------
    own : dict
        The same in our format.
    notes : tuple of str
        What was ignored, and why.

    Raises
    ------
    ConfigError
        An unknown key, too few values for the levels, or a value out of range.
    """
    known_keys(mapping, (*_FLAT_KEYS, *_FLAT_EXTRA_KEYS, *_LAUNCH_KEYS, *_TUNING_KEYS, *_PLACE_KEYS))
    notes = [
        f"ignored {', '.join(present)}: {why}"
        for keys, why in _IGNORED_KEYS.items()
        if (present := [key for key in keys if mapping.get(key) is not None])
    ]
    if mapping.get("n_clusters") is None:
        raise ConfigError("n_clusters: is missing; give the number of clusters of every level")
    if mapping.get("n_levels") is not None:
        count = whole_number("n_levels", mapping["n_levels"], 1, _MOST)
    else:
        count = len(mapping["n_clusters"]) if is_list(mapping["n_clusters"]) else 1

    for key in ("n_clusters", "n_splits", "n_iters", "n_resampling_steps", "sample_size", "sampling_strategy"):
        given = len(mapping[key]) if is_list(mapping.get(key)) else count
        if given < count:
            raise ConfigError(
                f"{key}: {given} values for {count} levels; give one value per level, or one value for all"
            )
        if given > count:
            # Their launcher takes the first ones as well.
            notes.append(f"{key}: {given} values for {count} levels; only the first {count} count")

    own: dict[str, Any] = {key: mapping[key] for key in _FLAT_EXTRA_KEYS if key in mapping}
    own["levels"] = [_flat_level(mapping, index) for index in range(count)]
    own["subset"] = mapping.get("subset_indices_path")
    return own, tuple(notes)


def _flat_level(mapping: Mapping[Any, Any], index: int) -> dict[str, Any]:
    def option(key: str) -> tuple[str, Any]:
        value = mapping.get(key)
        return (f"{key}[{index}]", mapping[key][index]) if is_list(value) else (key, value)

    def number(key: str, default: int | None, fix: str = "") -> int:
        name, value = option(key)
        if value is None and default is not None:
            return default
        return whole_number(name, value, 1, _MOST, fix)

    level: dict[str, Any] = {"clusters": number("n_clusters", None), "splits": number("n_splits", 1, "1 is no splits")}
    if option("n_iters")[1] is not None:
        level["iterations"] = number("n_iters", None)
    steps = number("n_resampling_steps", 1, "it counts the first fit, so 1 is no resampling") - 1
    if steps:
        name, strategy = option("sampling_strategy")
        level["resampling"] = {
            "steps": steps,
            "rows_per_cluster": number("sample_size", None, "it is the rows kept of each cluster when resampling"),
            "strategy": _FLAT_STRATEGIES[choice(name, "c" if strategy is None else strategy, tuple(_FLAT_STRATEGIES))],
        }
    return level


def read_yaml(path: str | os.PathLike[str]) -> object:
    """What a YAML (or JSON) file holds.

    Raises
    ------
    ConfigError
        The file is missing, unreadable or no YAML; the message names line and column.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text ({error}); give a YAML file") from error
    try:
        return yaml.load(text, _loader())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"{path}:{place} {problem}; mend the file there") from error


@functools.cache
def _loader() -> Any:
    """A YAML loader that reads numbers as people mean them and refuses a key given twice.

    PyYAML follows YAML 1.1, where 1e-4 is text, 010 is eight and 1:30 is ninety; of two equal keys it takes the last,
    silently.
    """
    import yaml
    from yaml.constructor import ConstructorError

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (how PyYAML lets a loader begin without any)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise ConstructorError(None, None, "a key that is no word", key.start_mark)
                if key.value in seen:
                    raise ConstructorError(None, None, f"the key {key.value} is given twice", key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    whole, real = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
    resolvers = [
        ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        (whole, r"[-+]?[0-9][0-9_]{,30}", list("-+0123456789")),
        (real, r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
        ("tag:yaml.org,2002:merge", r"<<", ["<"]),
    ]
    for tag, pattern, first in resolvers:
        Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})\Z"), first)
    Loader.add_constructor(whole, lambda _, node: int(node.value.replace("_", "")))
    Loader.add_constructor(real, lambda _, node: float(node.value.replace("_", "")))
    return Loader
