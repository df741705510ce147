"""Starting a stage from the adapter of another: where it lies, whether it fits, and how it becomes the reference.

The policy's own adapter (``default``) begins as a copy of the start adapter and is the only one that moves; a second,
frozen copy (``start``) stays beside it. The KL term's reference is then the base with the start adapter: the model
that the stage began with, as in the paper's second stage, and not the bare base. The base itself is left as it is, so
this holds for 4-bit bases too, and whatever saves or serves the policy needs the one adapter ``default`` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from racro_pl.figure_world.models import PREFIX, resolve_model
from racro_pl.policy.adapter_files import CONFIG, WEIGHTS, AdapterFiles, check_fit, compare, read_adapter
from racro_pl.policy.config import LoraSettings
from racro_pl.runs import versions
from racro_pl.terminal import get_logger
from racro_pl.types import RacroError

TRAINED = "default"
"""Name of the adapter that is trained, saved and served."""
START = "start"
"""Name of the frozen copy of the adapter that the run started from; absent when it started from the base."""
log = get_logger(__name__)


def find_adapter(path: str) -> Path:
    """The PEFT folder that ``policy.adapter`` means.

    Args:
        path: a PEFT folder, a run's folder (``runs/NAME/version_k``, or ``runs/NAME`` for its newest version that has
            finished), or a checkpoint file (its ``-adapter`` folder lies beside it).

    Raises:
        RacroError: there is none.
    """
    given = Path(path)
    if given.suffix == ".ckpt":
        candidates = [given.with_name(f"{given.stem}-adapter")]
    else:
        finished = [version / "adapter" for version in reversed(versions(given))]
        candidates = [given, given / "adapter", *finished]
    for folder in candidates:
        # Without safetensors peft would read a pickle.
        if all((folder / name).is_file() for name in (CONFIG, WEIGHTS)):
            return folder
    raise RacroError(
        f"policy.adapter {path!r} holds no {CONFIG} and {WEIGHTS}; expected a PEFT folder, the folder of a run "
        "that has finished, or a .ckpt file with its -adapter folder beside it"
    )


def start_from(model: Any, folder: Path, lora: LoraSettings) -> None:
    """Put a start adapter's weights into ``model``'s trained adapter, and a frozen copy of them beside it.

    Args:
        model: a PEFT model whose trained adapter is fresh.
        lora: what the configuration says of the adapter; the start adapter has to say the same.

    Raises:
        RacroError: its alpha, rank, layers or sizes differ, or it is refused by :func:`read_adapter`.
    """
    from peft import get_peft_model_state_dict

    adapter = read_adapter(folder)
    if (adapter.rank, adapter.alpha) != (lora.rank, lora.alpha):
        raise RacroError(
            f"policy.adapter {str(folder)!r} has rank {adapter.rank} and alpha {adapter.alpha}, policy.lora says rank "
            f"{lora.rank} and alpha {lora.alpha}; a stage continues to train its start adapter: set policy.lora to "
            f"{{rank: {adapter.rank}, alpha: {adapter.alpha}}}"
        )
    if adapter.dropout:
        raise RacroError(
            f"policy.adapter {str(folder)!r} uses lora_dropout {adapter.dropout}; expected an adapter without dropout, "
            "as `racro-pl fit` writes it: log-probs of one caption must not differ between sampling and loss"
        )
    if bool(adapter.parameters) != lora.experts:
        raise RacroError(
            f"policy.adapter {str(folder)!r} {'has' if adapter.parameters else 'has no'} adapters on experts, and "
            f"policy.lora.experts is {str(lora.experts).lower()}; a stage continues to train its start adapter: set "
            f"policy.lora.experts: {str(bool(adapter.parameters)).lower()}"
        )
    fresh = get_peft_model_state_dict(model, adapter_name=TRAINED)
    compare(adapter, {name: tuple(tensor.shape) for name, tensor in fresh.items()})
    model.add_adapter(START, model.peft_config[TRAINED])
    for name in (TRAINED, START):
        _fill(model, adapter, name)
    model.set_adapter(TRAINED)


def put_on(model: Any, folder: Path) -> Any:
    """A transformers model with an adapter on it, for inference.

    The adapter is built from its rank, its alpha and the layers that it fits, and not from its configuration file.

    Raises:
        RacroError: the adapter does not fit the model, or is refused by :func:`read_adapter`.
    """
    from peft import LoraConfig, get_peft_model

    from racro_pl.policy.lora import fuse

    adapter = read_adapter(folder)
    names, experts = check_fit(adapter, model)
    alpha: Any = adapter.alpha  # a fraction does as well
    config = LoraConfig(
        r=adapter.rank, lora_alpha=alpha, target_modules=names, target_parameters=experts or None, task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, config, adapter_name=TRAINED, autocast_adapter_dtype=True)
    _fill(model, adapter, TRAINED)
    fuse(model)
    return model


def _fill(model: Any, adapter: AdapterFiles, name: str) -> None:
    from peft import set_peft_model_state_dict

    result: Any = set_peft_model_state_dict(model, adapter.read_tensors(), adapter_name=name)
    left = [key for key in result.missing_keys if f".{name}." in key] + list(result.unexpected_keys)
    if left:
        raise RacroError(
            f"{adapter.what}: peft put {len(left)} tensors in no place, e.g. {left[0]}; is peft up to date?"
        )
    if name == TRAINED:
        _tell(adapter, model.get_base_model().name_or_path)


def _tell(adapter: AdapterFiles, base: str) -> None:
    """What is not wrong, but may not be what was meant."""
    if adapter.old_names:
        log.warning(
            "%s: %d tensors have the names of transformers before 4.52; read by today's, e.g. %s",
            adapter.what, len(adapter.old_names), next(iter(adapter.old_names)),
        )  # fmt: skip
    if adapter.base and not _same_base(adapter.base, base):
        log.warning("%s was trained on %s and is put on %s: is that the same model?", adapter.what, adapter.base, base)


def _same_base(told: str, here: str) -> bool:
    """Whether the base that an adapter tells may be the model here."""
    if not told.startswith(PREFIX):
        # A local copy of a hub model has another path, but seldom another name.
        return Path(told).name == Path(here).name
    try:
        return Path(resolve_model(told)) == Path(resolve_model(here))
    except RacroError:  # embedded in another release
        return False


@contextmanager
def switched(layers: Sequence[Any], adapter: str | None) -> Iterator[None]:
    """While this lasts, layers compute with another of their adapters, or with none.

    peft's own ``disable_adapter`` looks at every module and parameter of a model: 70 ms on a CPU core for 36 layers.
    Which weights are trainable is left as it is, so this is for passes without gradient.

    Args:
        layers: all of a model's that carry adapters.
    """
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    for layer in layers:
        layer._disable_adapters = adapter is None
        if adapter is not None:
            layer._active_adapter = [adapter]
    try:
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled
