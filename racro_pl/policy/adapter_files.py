"""A LoRA adapter's folder, read without trusting it: what it adapts, how strongly, and whether it fits a model.

peft would build an object from every field of ``adapter_config.json``, and before 0.20 import what one of them names.
Here the few fields that matter are read; every other one must be off, or the adapter is another function than the one
that would be built, and is refused by name. A tensor that finds no place, or a place that finds no tensor, is an error.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from racro_pl.policy.structure import expert_names
from racro_pl.pretrained.folder import read_header, read_json
from racro_pl.pretrained.sandbox import run_apart
from racro_pl.pretrained.weights import refuse_halves
from racro_pl.types import RacroError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ALL_LINEAR = "all-linear"
_READ = (
    "peft_type",
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "target_parameters",
    "base_model_name_or_path",
)
_NO_EFFECT = ("task_type", "inference_mode", "peft_version", "auto_mapping", "megatron_core", "runtime_config")
"""Say nothing about the function that the adapter is, and are never used. (megatron_core: a module to import; peft
writes its own default there.)"""
_HARMLESS_INIT = (True, False, None, "gaussian", "orthogonal")
"""How trained weights once began does not matter. Other ways (PiSSA, OLoRA, CorDA, LoftQ) change the base as well."""
_IN_PEFT = "base_model.model."
"""What PEFT puts before the names of a model's modules."""
_OLD_NAMES = (
    ("base_model.model.model.layers.", "base_model.model.model.language_model.layers."),
    ("base_model.model.visual.", "base_model.model.model.visual."),
)
"""How adapters name the layers of vision-language models when written with transformers before 4.52, and since."""
_MAX_RANK = 4096


@dataclass(frozen=True)
class AdapterFiles:
    """What a PEFT folder says, checked by itself but not yet against a model."""

    folder: Path
    rank: int
    alpha: float
    dropout: float
    targets: str | tuple[str, ...]
    """Names of modules (their ends), a pattern that matches names as a whole, or ``all-linear``."""
    parameters: tuple[str, ...]
    """Names of stacked experts (their ends); empty for an adapter on layers alone."""
    base: str
    shapes: Mapping[str, tuple[int, ...]]
    """Of the tensors, by today's names."""
    old_names: Mapping[str, str] = field(default_factory=dict)
    """The names in the file, by today's names, where they differ."""

    @property
    def what(self) -> str:
        """Names the adapter in errors."""
        return f"adapter {str(self.folder)!r}"

    def read_tensors(self) -> dict[str, Tensor]:
        """The tensors, by today's names, in main memory."""
        from safetensors.torch import load_file

        stored = load_file(self.folder / WEIGHTS)
        return {name: stored[self.old_names.get(name, name)] for name in self.shapes}


def read_adapter(folder: Path) -> AdapterFiles:
    """Read a PEFT folder.

    Raises:
        RacroError: it is no LoRA adapter, sets a field that is not supported, or its weights file is not whole.
    """
    what = f"adapter {str(folder)!r}"
    config = read_json(folder / CONFIG, what)
    _check_fields(config, what)
    rank, alpha, dropout = (config.get(name, 0.0) for name in ("r", "lora_alpha", "lora_dropout"))
    targets, base = config.get("target_modules"), config.get("base_model_name_or_path")
    if not (_number(rank) and isinstance(rank, int) and 1 <= rank <= _MAX_RANK):
        raise RacroError(f"{what}: r is {rank!r}; expected a rank from 1 to {_MAX_RANK}")
    if not (_number(alpha) and _number(dropout)):
        raise RacroError(f"{what}: lora_alpha is {alpha!r} and lora_dropout {dropout!r}; expected numbers")
    listed = isinstance(targets, list) and all(isinstance(name, str) for name in targets)
    if not targets or not (isinstance(targets, str) or listed):
        raise RacroError(f"{what}: target_modules is {str(targets)[:80]!r}; expected names of layers, or a pattern")
    parameters = config.get("target_parameters") or []
    if not (isinstance(parameters, list) and all(isinstance(name, str) for name in parameters)):
        raise RacroError(f"{what}: target_parameters is {str(parameters)[:80]!r}; expected names of parameters")
    stored = read_header(folder / WEIGHTS, what)
    renamed = {_renamed(name): name for name in stored}
    if len(renamed) != len(stored):
        raise RacroError(f"{what}: the file holds tensors under old and new names at once; expected one of them")
    return AdapterFiles(
        folder=folder, rank=rank, alpha=alpha, dropout=dropout,
        targets=targets if isinstance(targets, str) else tuple(targets),
        parameters=tuple(parameters),
        base=base if isinstance(base, str) else "",
        shapes={new: stored[old] for new, old in renamed.items()},
        old_names={new: old for new, old in renamed.items() if new != old},
    )  # fmt: skip


def _check_fields(config: Mapping[str, Any], what: str) -> None:
    if config.get("peft_type") != "LORA":
        raise RacroError(
            f"{what}: peft_type is {str(config.get('peft_type'))[:40]!r}; expected LORA, the only supported"
        )
    if config.get("init_lora_weights") not in _HARMLESS_INIT:
        raise RacroError(
            f"{what}: init_lora_weights is {str(config['init_lora_weights'])[:40]!r}, which changes the base weights "
            "too; save it again as an ordinary LoRA adapter (peft: path_initial_model_for_weight_conversion)"
        )
    from peft import LoraConfig

    known = {*_READ, *_NO_EFFECT, "init_lora_weights"}
    off = {each.name: each.default for each in dataclasses.fields(LoraConfig)}
    strange = sorted(
        name for name, value in config.items()
        if name not in known and value not in (None, False, "", [], {}) and not (name in off and value == off[name])
    )  # fmt: skip
    if strange:
        raise RacroError(
            f"{what}: sets {', '.join(name[:60] for name in strange[:5])}, which make it another function than plain "
            "LoRA and are not supported; expected r, lora_alpha, target_modules and target_parameters, all else left "
            "at peft's defaults"
        )


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _renamed(name: str, beginnings: Sequence[tuple[str, str]] = _OLD_NAMES) -> str:
    """A name with another beginning, where it has one of those; by default today's name of a tensor."""
    for known, other in beginnings:
        if name.startswith(known):
            return other + name.removeprefix(known)
    return name


def target_names(adapter: AdapterFiles, model: nn.Module) -> list[str]:
    """The modules of a base model that an adapter says it adapts.

    Args:
        model: a transformers model without adapters; its weights may be on the meta device.

    Raises:
        RacroError: there is none, one is not linear, or the pattern does not end.
    """
    modules = dict(model.named_modules())
    head = model.get_output_embeddings()  # type: ignore[operator]
    if adapter.targets == ALL_LINEAR:
        found = [name for name, module in modules.items() if isinstance(module, nn.Linear) and module is not head]
    elif isinstance(adapter.targets, str):
        # Its writer chose the pattern, and patterns may backtrack for ever.
        what = f"{adapter.what}: the pattern in target_modules"
        found = run_apart(["match", adapter.targets, list(modules)], what)
        if not found and adapter.old_names:
            # How modules were named before transformers 4.52.
            back = [(new, old) for old, new in _OLD_NAMES]
            of_old = {_renamed(_IN_PEFT + name, back).removeprefix(_IN_PEFT): name for name in modules}
            found = [of_old[name] for name in run_apart(["match", adapter.targets, list(of_old)], what)]
    else:
        ends = set(adapter.targets)
        found = [name for name in modules if not ends.isdisjoint(_ends(name))]
    for name in found:
        if not isinstance(modules[name], nn.Linear):
            kind = type(modules[name]).__name__
            raise RacroError(f"{adapter.what}: it adapts {name}, a {kind}; expected linear layers")
    if not found:
        raise RacroError(
            f"{adapter.what}: target_modules {str(adapter.targets)[:200]!r} names no layer of the model; was it "
            f"trained on another one? Its base is {adapter.base or 'not named'}"
        )
    return found


def _ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def parameter_names(adapter: AdapterFiles, model: nn.Module) -> list[str]:
    """The stacked experts of a base model that an adapter says it adapts.

    Raises:
        RacroError: it names another parameter, or none of the model's.
    """
    ends = set(adapter.parameters)
    found = [name for name, _ in model.named_parameters() if not ends.isdisjoint(_ends(name))]
    strange = sorted(set(found) - set(expert_names(model)))
    if strange:
        raise RacroError(
            f"{adapter.what}: target_parameters names {strange[0]}; expected stacked experts of the language model"
        )
    if ends and not found:
        raise RacroError(
            f"{adapter.what}: target_parameters {str(adapter.parameters)[:200]!r} names no experts of the model; was "
            f"it trained on another one? Its base is {adapter.base or 'not named'}"
        )
    return found


def check_fit(adapter: AdapterFiles, model: nn.Module) -> tuple[list[str], list[str]]:
    """Whether an adapter has exactly the tensors that it needs on a base model.

    Returns:
        The modules and the stacked experts that it adapts.

    Raises:
        RacroError: names the first few tensors that are missing, left over or of another size, and the likely cause.
    """
    names = target_names(adapter, model)
    expected: dict[str, tuple[int, ...]] = {}
    for name in names:
        layer: Any = model.get_submodule(name)
        expected[f"base_model.model.{name}.lora_A.weight"] = (adapter.rank, layer.in_features)
        expected[f"base_model.model.{name}.lora_B.weight"] = (layer.out_features, adapter.rank)
    parameters = parameter_names(adapter, model)
    for path, (inward, outward, experts) in _of_experts(parameters, model).items():
        expected[f"base_model.model.{path}.lora_A.weight"] = (adapter.rank * experts, inward)
        expected[f"base_model.model.{path}.lora_B.weight"] = (outward, adapter.rank * experts)
    compare(adapter, expected)
    return names, parameters


def _of_experts(parameters: list[str], model: nn.Module) -> dict[str, tuple[int, int, int]]:
    """Width in, width out and number of the experts, by the path of peft's wrapper around them.

    Wrappers of one module's parameters are nested, the first parameter's innermost.
    """
    found = {}
    for owner in dict.fromkeys(name.rpartition(".")[0] for name in parameters):
        module = model.get_submodule(owner)
        own = [name for name, _ in module.named_parameters(recurse=False) if f"{owner}.{name}" in parameters]
        for depth, name in enumerate(reversed(own)):
            experts, outward, inward = getattr(module, name).shape
            if getattr(module, "is_transposed", False):
                outward, inward = inward, outward
            found[owner + depth * ".base_layer"] = (inward, outward, experts)
    return found


def compare(adapter: AdapterFiles, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse an adapter whose tensors are not those of ``expected``, by name and shape.

    Raises:
        RacroError: as :func:`check_fit`.
    """
    found = adapter.shapes
    missing, unexpected = set(expected) - set(found), set(found) - set(expected)
    mismatched = [(n, found[n], expected[n]) for n in sorted(set(found) & set(expected)) if found[n] != expected[n]]
    base = f"; it names {adapter.base!r} as its base" if adapter.base else ""
    refuse_halves(missing, unexpected, mismatched, f"{adapter.what}{base}", cause=_cause(missing, unexpected))


def _cause(missing: set[str], unexpected: set[str]) -> str:
    if any("lora_magnitude" in name for name in missing | unexpected):
        return "Magnitudes belong to a DoRA adapter, which is not supported"
    if any(name.startswith("module.") or ".default." in name for name in unexpected):
        return "The tensors are those of a state dict: save the adapter with peft's save_pretrained"
    if missing and not unexpected:
        return "The file holds only a part of the adapter: copy or save it again"
    return (
        "Usually it was trained on another model, or written by another program, or with another transformers; "
        "expected an adapter of the same base model, as policy.path has it"
    )
