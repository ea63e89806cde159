"""The searches that are compared, ours and those of other libraries, behind one ask and tell.

The others get what they would model best: losses on the scales of the objectives, lower is better. Optuna's TPE and
NSGA-II see the conditional space define by run, its Gaussian process and BoTorch the flattened one, SMAC3 a
configuration space with conditions. BoTorch's reference point is the declared one; the others take none.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.trial import TrialState

from routing.objectives import losses_of, reference_of
from search_spaces.search.encoding import Encoding
from search_spaces.search.proposer import Proposer
from search_spaces.study.parameters import from_label, is_constant
from search_spaces.study.registry import SAMPLERS
from search_spaces.study.schema import Parameter, SamplerSection

if TYPE_CHECKING:
    from search_spaces.bench.tasks import Task


class Searcher(ABC):
    """Proposes settings of a task, several of which may be running."""

    def __init__(self, task: Task, seed: int, trials: int) -> None:
        self.task, self.seed, self.trials = task, seed, trials

    @abstractmethod
    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Return a handle and a setting."""

    @abstractmethod
    def tell(self, handle: Any, values: list[float]) -> None:
        """Say what a setting reached."""

    def losses(self, values: list[float]) -> list[float]:
        """Return values of the objectives on their scales, lower is better."""
        return [float(loss) for loss in losses_of([values], self.task.objectives)[0]]


class Ours(Searcher):
    """One of our samplers, as a study runs it."""

    def __init__(self, name: str, task: Task, seed: int, trials: int) -> None:
        super().__init__(task, seed, trials)
        section = SamplerSection.model_validate({"name": name, "seed": seed})
        self._proposer = Proposer(task.space, task.objectives, section)

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Propose."""
        proposal = self._proposer.propose(lambda values: None)
        assert proposal is not None
        return proposal.handle, proposal.values

    def tell(self, handle: Any, values: list[float]) -> None:
        """Observe."""
        self._proposer.observe(handle, TrialState.COMPLETE, values, {1: values})


class OptunaSearcher(Searcher):
    """A sampler of Optuna's."""

    def __init__(self, make: Callable[[int], Any], flat: bool, task: Task, seed: int, trials: int) -> None:
        import optuna

        super().__init__(task, seed, trials)
        self._flat = flat
        self._study = optuna.create_study(directions=["minimize"] * len(task.objectives), sampler=make(seed))

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Propose."""
        space = self.task.space
        if not self._flat:
            trial = self._study.ask()
            return trial, space.sample(trial)
        trial = self._study.ask(fixed_distributions=space.distributions())
        return trial, space.decide(lambda name, parameter: from_label(parameter, trial.params[name]))

    def tell(self, handle: Any, values: list[float]) -> None:
        """Observe."""
        self._study.tell(handle, self.losses(values))


class Smac(Searcher):
    """SMAC3's ParEGO with its defaults."""

    def __init__(self, task: Task, seed: int, trials: int) -> None:
        from smac import HyperparameterOptimizationFacade, Scenario
        from smac.multi_objective.parego import ParEGO

        super().__init__(task, seed, trials)
        self._folder = tempfile.TemporaryDirectory()
        scenario = Scenario(
            _configuration_space(task, seed),
            objectives=[objective.metric for objective in task.objectives],
            n_trials=trials,
            seed=seed,
            deterministic=True,
            output_directory=Path(self._folder.name),
        )
        self._facade = HyperparameterOptimizationFacade(
            scenario,
            lambda config, seed=0: 0.0,
            multi_objective_algorithm=ParEGO(scenario),
            overwrite=True,
            logging_level=False,
        )

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Propose."""
        info = self._facade.ask()
        found = {key: value.item() if hasattr(value, "item") else value for key, value in dict(info.config).items()}
        return info, self.task.space.decide(lambda name, parameter: _typed(parameter, found[name]))

    def tell(self, handle: Any, values: list[float]) -> None:
        """Observe."""
        from smac.runhistory.dataclasses import TrialValue

        self._facade.tell(handle, TrialValue(cost=self.losses(values)))


def _typed(parameter: Parameter, value: Any) -> Any:
    return parameter.choice[int(value)] if parameter.choice is not None else value


def _configuration_space(task: Task, seed: int) -> Any:
    """Return the space with its conditions; options of a choice are their numbers."""
    from ConfigSpace import Categorical, ConfigurationSpace, Float, InCondition, Integer

    space, added = ConfigurationSpace(seed=seed), dict[str, Any]()
    for name, parameter in task.space.parameters.items():
        if is_constant(parameter):
            continue
        if parameter.choice is not None:
            added[name] = Categorical(name, [str(k) for k in range(len(parameter.choice))])
        elif parameter.int_range is not None:
            added[name] = Integer(name, parameter.int_range, log=parameter.log)
        else:
            assert parameter.float_range is not None
            added[name] = Float(name, parameter.float_range, log=parameter.log)
        space.add(added[name])
    for name, child in added.items():
        for parent, accepted in task.space.parameters[name].when.items():
            options = task.space.parameters[parent].choice or ()
            wanted = [str(k) for k, option in enumerate(options) if option in accepted]
            space.add(InCondition(child, added[parent], wanted))
    return space


class Botorch(Searcher):
    """qLogNEHVI of BoTorch over the unit cube, its Gaussian processes with their defaults; ten random trials first."""

    _STARTUP = 10

    def __init__(self, task: Task, seed: int, trials: int) -> None:
        super().__init__(task, seed, trials)
        self._encoding, self._random = Encoding(task.space), np.random.default_rng(seed)
        self._running: dict[int, Any] = {}
        self._ended: list[tuple[Any, list[float]]] = []
        self._asked = 0

    def ask(self) -> tuple[Any, dict[str, Any]]:
        """Propose."""
        self._asked += 1
        enough = len(self._ended) >= self._STARTUP
        point = self._best() if enough else self._random.random(len(self._encoding.names))
        setting = self._encoding.setting(point)
        self._running[self._asked] = self._encoding.cube(self.task.space.labels(setting))
        return self._asked, setting

    def tell(self, handle: Any, values: list[float]) -> None:
        """Observe."""
        self._ended.append((self._running.pop(handle), [-loss for loss in self.losses(values)]))

    def _best(self) -> Any:
        import torch
        from botorch.acquisition.multi_objective.logei import qLogNoisyExpectedHypervolumeImprovement
        from botorch.fit import fit_gpytorch_mll
        from botorch.models import ModelListGP, SingleTaskGP
        from botorch.models.transforms import Standardize
        from botorch.optim import optimize_acqf
        from gpytorch.mlls import SumMarginalLogLikelihood

        torch.manual_seed(self.seed * 1000 + self._asked)
        points, values = (torch.tensor(np.array(part)) for part in zip(*self._ended, strict=True))
        models = [SingleTaskGP(points, column[:, None], outcome_transform=Standardize(1)) for column in values.T]
        model = ModelListGP(*models)
        fit_gpytorch_mll(SumMarginalLogLikelihood(model.likelihood, model))
        acquisition = qLogNoisyExpectedHypervolumeImprovement(
            model,
            ref_point=(-reference_of(self.task.objectives)).tolist(),
            X_baseline=points,
            X_pending=torch.tensor(np.array([*self._running.values()])) if self._running else None,
            prune_baseline=True,
        )
        bounds = torch.tensor([[0.0], [1.0]], dtype=torch.double).repeat(1, points.shape[1])
        found, _ = optimize_acqf(acquisition, bounds, q=1, num_restarts=4, raw_samples=128)
        return found[0].numpy()


def _optuna(name: str) -> Callable[[int], Any]:
    import optuna

    made: dict[str, Callable[[int], Any]] = {
        "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True),
        "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, warn_independent_sampling=False),
        "nsga2": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
    }
    return made[name]


RIVALS: dict[str, Callable[[Task, int, int], Searcher]] = {
    "Optuna TPE": lambda *task: OptunaSearcher(_optuna("tpe"), False, *task),
    "Optuna GP": lambda *task: OptunaSearcher(_optuna("gp"), True, *task),
    "Optuna NSGA-II": lambda *task: OptunaSearcher(_optuna("nsga2"), False, *task),
    "SMAC3 ParEGO": Smac,
    "BoTorch qLogNEHVI": Botorch,
}
"""Searches of other libraries; SMAC3 and BoTorch are extras for development."""
_NEEDS = {"SMAC3 ParEGO": "smac", "BoTorch qLogNEHVI": "botorch"}
"""Packages that are no dependencies of this one."""


def searcher_of(name: str, task: Task, seed: int, trials: int) -> Searcher:
    """Return one of our samplers, by its name in a study, or one of ``RIVALS``."""
    return Ours(name, task, seed, trials) if name in SAMPLERS else RIVALS[name](task, seed, trials)


def installed(names: Sequence[str]) -> tuple[list[str], str]:
    """Return the searches whose library is installed, and a line on the others, empty where there is none."""
    missing = {name: _NEEDS[name] for name in names if name in _NEEDS and find_spec(_NEEDS[name]) is None}
    others = ", ".join(f"{name} (pip install {module})" for name, module in missing.items())
    return [name for name in names if name not in missing], f"left out, not installed: {others}" if missing else ""
