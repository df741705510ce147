"""A causal language model in this process: from chats to replies, batched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from racro_pl.figure_world.models import resolve_model
from racro_pl.pretrained.chat_template import ChatTemplate, chat_template_of, check_template, without_system
from racro_pl.pretrained.folder import fetch_folder, first_line
from racro_pl.pretrained.sandbox import RefusalError
from racro_pl.pretrained.weights import check_vocabulary, end_token_ids, load_whole
from racro_pl.reward.reasoner import ReasonerError, Reply, UsageMeter
from racro_pl.terminal import get_logger
from racro_pl.text.reasoner_prompt import reasoner_messages
from racro_pl.text.thoughts import PROMPT_END_TOKENS, mark_opening
from racro_pl.types import Messages, RacroError

if TYPE_CHECKING:
    import torch

log = get_logger(__name__)


class LocalModel:
    """A loaded model folder with its tokenizer and chat template.

    Args:
        path, device, dtype, temperature, top_p, max_new_tokens: as of :class:`racro_pl.reward.InProcessReasoner`.

    Raises:
        ReasonerError: it cannot be loaded, or has no chat template.
    """

    def __init__(
        self, path: str, device: str, dtype: str, temperature: float, top_p: float, max_new_tokens: int
    ) -> None:
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig

        what, folder = f"the reasoner {path!r}", resolve_model(path)
        try:
            tokenizer = _load_tokenizer(folder, what)
            self._template = chat_template_of(tokenizer, tokenizer, what)
            self._folds_system = _lacks_system_role(self._template)
            model = load_whole(AutoModelForCausalLM, folder, what, dtype=getattr(torch, dtype))
            check_vocabulary(model, tokenizer, what)
            stop = end_token_ids(model.generation_config, tokenizer, what)
        except RacroError as error:
            raise ReasonerError(str(error)) from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(min(stop))
        if device == "auto":
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
        # The folder's own sampling settings would fill every gap in ours: keep of them only where to stop.
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(stop),
            pad_token_id=tokenizer.pad_token_id,
            max_new_tokens=max_new_tokens,
            do_sample=False,  # sampling is a logits processor here, which leaves one token to choose from
        )
        self._sampling = (temperature, top_p, max_new_tokens)
        self.tokenizer = tokenizer
        self.model = model.requires_grad_(False).eval().to(torch.device(device))

    @property
    def context(self) -> int | None:
        """Its longest text in tokens, where its configuration tells."""
        return getattr(self.model.config, "max_position_embeddings", None)

    def tokenize(self, chats: Sequence[Messages]) -> list[list[int]]:
        """Each chat as the model reads it, up to where its answer begins.

        Raises:
            RefusalError, SandboxError: the chat template fails or does not end.
        """
        folded = [without_system(messages) if self._folds_system else messages for messages in chats]
        # The template writes its own special tokens.
        texts = [self._template.render(messages) for messages in folded]
        return self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []

    def generate(self, rows: Sequence[list[int]], seeds: Sequence[int] | None, meter: UsageMeter) -> list[Reply]:
        """Continue tokenised prompts as one batch.

        Args:
            seeds: one per row; None for greedy decoding.
            meter: counts the tokens.
        """
        import torch

        from racro_pl.reward.seeded_sampling import sampler

        padded = self.tokenizer.pad({"input_ids": list(rows)}, return_tensors="pt")
        inputs: dict[str, torch.Tensor] = {
            name: padded[name].to(self.model.device) for name in ("input_ids", "attention_mask")
        }
        # A training step under autocast may be what reads the answers: they must not depend on who does.
        with torch.no_grad(), torch.autocast(self.model.device.type, enabled=False):
            output = self.model.generate(
                **inputs, logits_processor=None if seeds is None else sampler(seeds, *self._sampling)
            )
        answers = output[:, inputs["input_ids"].shape[1] :]
        stops = self.model.generation_config.eos_token_id
        ended = torch.isin(answers, torch.tensor(stops, device=answers.device)).int()
        # Up to and including the first end token; all of an answer that has none, which the length limit then cut.
        lengths = torch.where(ended.any(1), ended.argmax(1) + 1, answers.shape[1]).tolist()
        texts = self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        replies = []
        for row, text, length, whole in zip(rows, texts, lengths, ended.any(1).tolist(), strict=True):
            meter.add((len(row), length))
            # A template may have opened the thought already: then its tag is in the prompt.
            marked = mark_opening(text, self.tokenizer.decode(row[-PROMPT_END_TOKENS:]))
            replies.append(Reply(text=marked, truncated=not whole).visible())
        return replies


def _load_tokenizer(path: str, what: str) -> Any:
    from transformers import AutoTokenizer

    folder = fetch_folder(path, what)
    try:
        return AutoTokenizer.from_pretrained(folder, padding_side="left", trust_remote_code=False)
    except Exception as error:  # a stranger's files can be wrong in any way
        raise RacroError(f"{what}: cannot load a tokenizer ({first_line(error)})") from error


def _lacks_system_role(template: ChatTemplate) -> bool:
    """Whether the system text has to go into the user's turn, because the template has no role for it.

    Raises:
        RacroError: the template does not pass on the user's text, or does not end.
    """
    messages = reasoner_messages("How many?", "Two cats.")
    texts = [message["content"] for message in messages]
    try:
        dropped = check_template(template, messages, texts)
    except RefusalError:
        dropped = texts
    if not dropped:
        return False
    folded = without_system(messages)
    still = check_template(template, folded, texts)
    if still:
        raise RacroError(f"{template.what}: its chat template leaves out {still[0][:60]!r} of what it is sent")
    log.warning("%s: its chat template has no system role; the system text begins the user's turn", template.what)
    return True
