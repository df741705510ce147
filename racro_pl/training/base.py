"""Everything around the step: building the policy, opening the services, the optimizer, checkpoints.

The method itself is in ``module.py``.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from racro_pl.figure_world.models import resolve_model
from racro_pl.policy.adapters import TRAINED, find_adapter
from racro_pl.policy.captioner import Captioner
from racro_pl.policy.config import PolicySettings
from racro_pl.policy.loading import load_captioner, load_encoder
from racro_pl.policy.prompts import TEMPLATES, PromptEncoder
from racro_pl.pretrained import sandbox
from racro_pl.reward.own_answer import OwnAnswers
from racro_pl.reward.reward_function import RewardFunction
from racro_pl.reward.scorer import Scorer
from racro_pl.rollout import RolloutEngine, RunInfo
from racro_pl.rollout.engine import EncodedQuestion
from racro_pl.seeds import seed_for
from racro_pl.training import encoding, objectives
from racro_pl.training.checkpointing.io import ADAPTER_KEY, adapter_config_json
from racro_pl.training.checkpointing.resuming import (
    ORIGIN_KEY,
    SETTINGS_KEY,
    check_run,
    check_weights,
    configured_hyperparameters,
    origin_of,
    run_settings,
)
from racro_pl.training.checkpointing.run_folder import run_folder, stop_with_checkpoint
from racro_pl.training.distributed import disconnect_at_exit
from racro_pl.training.metrics.scores import check_evaluation, check_monitors
from racro_pl.training.reasoner_guard import ReasonerGuard
from racro_pl.training.rollouts import StepRollouts
from racro_pl.training.schedule import check_schedule, rate_share
from racro_pl.training.settings import FULL_LEARNING_RATE, LORA_LEARNING_RATE, ObjectiveSettings
from racro_pl.training.startup import check_trainer, keep_gradients_local, probe_captioner, unused_settings
from racro_pl.training.strategy import ShardedStrategy, load_sharded
from racro_pl.types import Question, RacroError, Role


class _CloseServices(Callback):
    """Lightning tears a module down after success only; requests under way must not outlive a failed run either."""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        pl_module.close_services()  # type: ignore[operator]


class CaptionerModule(LightningModule):
    """A captioner, its rollout engine and its reasoner under Lightning; arguments as in ``RacroModule``."""

    captioner: Captioner
    origin: dict[str, str | None]
    """Digests of the model that the run began with; see :func:`racro_pl.training.checkpointing.resuming.origin_of`."""

    def __init__(
        self,
        policy: PolicySettings,
        rollout: RolloutEngine,
        reward: Scorer | RewardFunction | None,
        objective: ObjectiveSettings,
    ) -> None:
        super().__init__()
        # A checkpoint holds what was trained, not the base: loading is partial by design, and checked by hand.
        self.strict_loading = False
        policy.path = resolve_model(policy.path)
        if policy.adapter is not None:
            # Now: "the newest version of a run" may be another one tomorrow, and the saved configuration names this.
            policy.adapter = str(find_adapter(policy.adapter))
        self.policy_settings = policy
        self.engine = rollout
        self.objective = objective
        self.roles = objective.roles
        """What every question is asked for."""
        self.reward = reward
        self.scorer = objectives.reward_function(objective, reward, lambda: self.captioner)
        self._own_answers = OwnAnswers() if objective.name == "joint" else None
        self._rollouts = StepRollouts(rollout, self.rewards)
        self._guard = ReasonerGuard(lambda: self.scorer)
        self._stop: RacroError | None = None
        """Why the run ends after this step."""
        self.updates_done = 0
        self._encoder: PromptEncoder | None = None
        self.seed: int | None = None
        """The run's, the same on all ranks and after a resumption; set when fitting starts."""
        self.step_seed = 0
        """Of the step under way, on this rank."""

    # ------------------------------------------------------------------ set-up

    def transfer_batch_to_device(
        self, batch: list[Question], device: torch.device, dataloader_idx: int
    ) -> list[Question]:
        """Questions are references and text: nothing to move."""
        return batch

    @property
    def encoder(self) -> PromptEncoder:
        """The prompt encoder, without the weights."""
        if self._encoder is None:
            self._encoder = load_encoder(self.policy_settings, TEMPLATES[self.roles[0]])
        return self._encoder

    def count_prompt_tokens(self, question: Question) -> int:
        """Prompt length, image tokens counted; the data module drops what is too long."""
        return self.encoder.count_tokens(question)

    @property
    def rewards(self) -> dict[Role, RewardFunction]:
        """Who rewards each role's texts, in the roles' order."""
        both = (self.scorer, self._own_answers)
        return {role: reward for role, reward in zip(self.roles, both, strict=False) if reward is not None}

    def encode_readable(self, questions: Sequence[Question], role: Role | None = None) -> list[EncodedQuestion]:
        """See :func:`racro_pl.training.encoding.encode_readable`; in one role, by default the objective's first."""
        roles = (role or self.roles[0],)
        return [only for (only,) in encoding.encode_readable(self.captioner, questions, roles, encoding.telling(self))]

    def _readable(self) -> Iterator[EncodedQuestion]:
        """Training questions, one by one: the pixels of the first may be broken after a good header."""
        questions = self.trainer.datamodule.questions["train"]  # type: ignore[attr-defined]
        return (encoded for question in questions for encoded in self.encode_readable([question]))

    def configure_callbacks(self) -> list[Callback]:
        return [_CloseServices()]

    def setup(self, stage: str) -> None:
        disconnect_at_exit(self.trainer)
        check_trainer(self.trainer, self.policy_settings)
        check_evaluation(self.trainer, self.scorer)
        objectives.check_strategy(self.objective, self.trainer)
        self._rollouts = StepRollouts(self.engine, self.rewards)
        if stage != "fit":
            return
        check_monitors(self.trainer)
        check_schedule(self.objective, self.trainer)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        objectives.check_questions(self.scorer, data.questions["train"])
        questions = data.questions_per_step // self.trainer.world_size
        curriculum = getattr(data, "curriculum", None)
        for line in unused_settings(self.objective, self.engine, self.reward, questions, curriculum):
            rank_zero_info(line)
        if self.objective.sample_ahead:
            rank_zero_info(
                "sample_ahead: the first step only samples, here and after a resume; a resumed run continues without "
                "the captions that were under way, so not bit for bit as the uninterrupted one"
            )

    def configure_model(self) -> None:
        """Build the policy on this rank's device. Called again by a second ``fit`` or ``test``: then a no-op."""
        if hasattr(self, "captioner"):
            return
        strategy = self.trainer.strategy
        if isinstance(strategy, ShardedStrategy):
            self.captioner = load_sharded(self.policy_settings, strategy, self.encoder, self._note_origin)
        else:
            self.captioner = load_captioner(self.policy_settings, strategy.root_device, self.encoder)
            self._note_origin(self.captioner)

    def _note_origin(self, captioner: Captioner) -> None:
        self.origin = origin_of(captioner)

    def on_fit_start(self) -> None:
        """Find out now, not half an hour in, that the reasoner is unreachable, or that images or gradients are lost."""
        self._guard.begin()
        if self.seed is None:
            self.seed = self.trainer.strategy.broadcast(torch.initial_seed())
        self._open_services()
        self.captioner.train()
        keep_gradients_local(self.trainer)
        probe_captioner(self.captioner, self._readable)

    def on_train_batch_start(self, batch: list[Question], batch_idx: int) -> None:
        keep_gradients_local(self.trainer)
        # No stream of random numbers goes from step to step, on any device: so none has to be saved and restored,
        # and nothing that draws in between (a validation, a callback) changes what is learnt.
        self.step_seed = seed_for(self.seed or 0, self.trainer.global_step, self.trainer.global_rank)
        torch.manual_seed(self.step_seed)
        self._rollouts.reward_stats()  # what was asked between two steps is of neither

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop a run whose reasoner or rollout server is gone, leaving a checkpoint from which it can be resumed."""
        if self._stop is not None:
            stop_with_checkpoint(self.trainer, self._stop)

    def on_train_epoch_start(self) -> None:
        # Only this class may change the mode: gradient checkpointing depends on it, silently.
        if not self.captioner.training or not self.captioner.model.training:
            raise RuntimeError("the policy is not in train mode at the start of an epoch; some callback changed it")

    def _open_services(self) -> None:
        self.scorer.check()
        # Every rank asks: the folder and the run's name are agreed on by broadcasts.
        trainer, folder = self.trainer, run_folder(self.trainer)
        run_id, key = trainer.strategy.broadcast((uuid.uuid4().hex[:12], secrets.token_urlsafe(32)))
        ranks = (trainer.global_rank, trainer.world_size, trainer.num_nodes)
        self.engine.open(RunInfo(self.policy_settings, folder, run_id, *ranks, key))

    def close_services(self) -> None:
        """End what was asked of the reasoner and of the rollout engine, whether answered or not."""
        self._rollouts.close()
        for reward in self.rewards.values():
            reward.close()
        self.engine.close()

    def teardown(self, stage: str) -> None:
        self.close_services()
        sandbox.close()  # a later use starts it again

    @contextmanager
    def sampling(self) -> Iterator[None]:
        """Around asking the engine for captions, on all ranks: an engine in this process needs the weights whole."""
        with ExitStack() as stack:
            if self.engine.placement == "in_process":
                stack.enter_context(self.captioner.gathered())
            yield
        self.captioner.sync_ranks()

    # ------------------------------------------------------------------ optimizer

    def configure_optimizers(self) -> torch.optim.Optimizer:
        settings = self.objective
        optimizer = torch.optim.AdamW(
            self._trained, lr=self.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
        )
        optimizer.register_load_state_dict_pre_hook(configured_hyperparameters)
        return optimizer

    @property
    def peak_rate(self) -> float:
        """The highest learning rate of the run: after the warm-up, before any decay."""
        default = FULL_LEARNING_RATE if self.policy_settings.lora is None else LORA_LEARNING_RATE
        return default if self.objective.learning_rate is None else self.objective.learning_rate

    @property
    def learning_rate(self) -> float:
        """Of the next update."""
        return self.peak_rate * rate_share(self.objective, self.updates_done, self.trainer)

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        """The one optimizer, without Lightning's counting wrapper."""
        return self.trainer.optimizers[0]

    @property
    def _trained(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.captioner.parameters() if parameter.requires_grad]

    # ------------------------------------------------------------------ checkpoints

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:  # type: ignore[override]
        """What was trained, without the frozen base."""
        if not hasattr(self, "captioner"):
            return {}
        trained = ((name, value) for name, value in self.captioner.named_parameters() if value.requires_grad)
        return {f"captioner.{name}": parameter.detach() for name, parameter in trained}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["racro_updates_done"] = self.updates_done
        checkpoint["racro_seed"] = self.seed
        checkpoint[ORIGIN_KEY] = self.origin
        checkpoint[SETTINGS_KEY] = self._run_settings()
        checkpoint["racro_spent"] = self._guard.spent
        if self.policy_settings.lora is not None:
            checkpoint[ADAPTER_KEY] = adapter_config_json(self.captioner.model.peft_config[TRAINED])

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Non-strict loading would hide a checkpoint of another policy: compare by hand."""
        adapter = None if self.policy_settings.lora is None else self.captioner.model.peft_config[TRAINED]
        check_weights(self.policy_settings, adapter, self.state_dict(), self.origin, checkpoint)
        self.updates_done = checkpoint["racro_updates_done"]
        self.seed = checkpoint["racro_seed"]
        given = os.environ.get("PL_GLOBAL_SEED")  # where seed_everything leaves it
        if self.trainer.state.fn == TrainerFn.FITTING:
            if given not in (None, str(self.seed)):
                rank_zero_info(
                    f"resume: the seed is the checkpoint's, {self.seed}; seed_everything {given} is not used"
                )
            check_run(self._run_settings(), self.origin, checkpoint)
        self._guard.resume(checkpoint.get("racro_spent", 0.0))

    def _run_settings(self) -> dict[str, Any]:
        parts = (self.engine, self.reward, self.trainer)
        return run_settings(self.policy_settings, self.objective, self.peak_rate, *parts)
