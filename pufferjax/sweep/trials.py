"""The trials of a sweep in Optuna's storage: queued, each claimed by one worker, taken from workers that died.

All trials are queued when the sweep begins (`WAITING`), and drawn when they are claimed: there is never one too many.
A worker sends heartbeats while it has a trial. If they cease, Optuna fails the trial, and queues it again with the same
parameters, as a new trial that knows its predecessors; the first of them gives it its number for the user, and its
folder, in which the next worker finds what was trained. A trial that failed by itself has the attribute `failure`, and
is not queued again.
"""

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import optuna
import sqlalchemy.engine
import sqlalchemy.exc
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState

from pufferjax.sweep.plan import Plan

PLAN, FAILURE = "plan", "failure"
SUPERSEDED = "superseded"  # the failure of a trial that was queued twice
_RETRIES = 20  # of a trial whose workers died; it may be what they died of
_PATIENCE = 600.0  # seconds for which a storage may be away
AWAY = (StorageInternalError, sqlalchemy.exc.OperationalError, sqlalchemy.exc.InterfaceError)

warnings.filterwarnings("ignore", category=ExperimentalWarning)
optuna.logging.set_verbosity(optuna.logging.ERROR)


def patiently(call: Callable, *arguments, **options):
    """`call(...)`, again and again while the storage cannot be reached, or is busy."""
    deadline, pause = time.monotonic() + _PATIENCE, 0.1
    while True:
        try:
            return call(*arguments, **options)
        except AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


def shown(url: str) -> str:
    """A storage's URL without the password."""
    try:
        return sqlalchemy.engine.make_url(url).render_as_string(hide_password=True)
    except sqlalchemy.exc.ArgumentError:
        return url


def open_storage(url: str, grace_seconds: int) -> RDBStorage:
    """The storage of a URL, made if it is a file that there is not; a worker that is silent for `grace_seconds` counts
    as dead. ValueError, one line, if it cannot be opened."""
    if url.startswith(("postgresql://", "postgres://")):
        url = "postgresql+psycopg://" + url.partition("://")[2]
    if "://" not in url:
        raise ValueError(f"--storage must be a URL, as sqlite:///sweep.db or postgresql://user@host/name, got {url!r}")
    # A connection that the server has dropped is replaced; a file that another worker writes to is waited for.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 60}
    try:
        return RDBStorage(
            url,
            engine_kwargs=options,
            heartbeat_interval=max(1, grace_seconds // 6),
            grace_period=grace_seconds,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES),
        )
    except ImportError as error:
        hint = "; pip install 'pufferjax[postgresql]'" if "postgresql" in url else ""
        raise ValueError(f"--storage {shown(url)}: its driver is not installed ({error}){hint}") from None
    except (sqlalchemy.exc.SQLAlchemyError, RuntimeError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise ValueError(f"--storage {shown(url)} cannot be opened: {reason}") from None


def trial_number(trial: FrozenTrial) -> int:
    """The number of a trial for the user: that of its first attempt."""
    first = RetryHeartbeatStaleTrialCallback.retried_trial_number(trial)
    return trial.number if first is None else first


def is_open(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.WAITING, TrialState.RUNNING)


def is_lost(trial: FrozenTrial) -> bool:
    """Whether its worker died, or gave it back."""
    return trial.state == TrialState.FAIL and FAILURE not in trial.user_attrs


def by_number(trials: Iterable[FrozenTrial]) -> dict[int, FrozenTrial]:
    """{number: what became of it, or its latest attempt}."""

    def rank(trial):
        is_done = trial.state.is_finished() and not is_lost(trial) and trial.user_attrs.get(FAILURE) != SUPERSEDED
        return is_done, is_open(trial), trial.number

    found: dict[int, FrozenTrial] = {}
    for trial in trials:
        number = trial_number(trial)
        if number not in found or rank(trial) > rank(found[number]):
            found[number] = trial
    return dict(sorted(found.items()))


class Trials:
    """The trials of one sweep, for one worker. Methods wait while the storage is away."""

    def __init__(self, storage: RDBStorage, name: str):
        """KeyError if the storage has no such sweep."""
        self._storage, self._name = storage, name
        self._study_id = storage.get_study_id_from_name(name)

    @classmethod
    def create(cls, storage: RDBStorage, plan: Plan) -> "Trials":
        """Those of a new sweep; of the one there is, if another process was quicker, or began and was killed."""
        directions = ["maximize"] if plan.max_cost is not None else ["maximize", "minimize"]
        optuna.create_study(storage=storage, study_name=plan.name, directions=directions, load_if_exists=True)
        trials = cls(storage, plan.name)
        if trials.plan() is None:
            storage.set_study_user_attr(trials._study_id, PLAN, plan.to_json())
        return trials

    def plan(self) -> Plan | None:
        """What its workers do; None if it was never said."""
        table = patiently(self._storage.get_study_user_attrs, self._study_id).get(PLAN)
        return None if table is None else Plan.from_json(table)

    def all(self) -> list[FrozenTrial]:
        return patiently(self._storage.get_all_trials, self._study_id, deepcopy=False)

    def enqueue(self, total: int, start: dict[str, Any]) -> None:
        """Queues what is missing of `total` trials; the first one has the parameters `start`."""
        study = self._study()
        for number in range(len(by_number(self.all())), total):
            patiently(study.enqueue_trial, start if number == 0 else {})

    def _study(self, sampler=None) -> optuna.Study:
        """Seen anew: a study remembers the trials it has seen."""
        return patiently(optuna.load_study, study_name=self._name, storage=self._storage, sampler=sampler)

    def claim(self, make_sampler: Callable[[int], optuna.samplers.BaseSampler]) -> Trial | None:
        """A waiting trial, from now on this worker's; `make_sampler` of its number draws it. None: there is none."""
        waiting = [trial for trial in self.all() if trial.state == TrialState.WAITING]
        for trial in sorted(waiting, key=trial_number):
            # Before it runs: from its first moment on it can be taken from a worker that dies.
            self._beat(trial._trial_id)
            try:
                if not patiently(self._storage.set_trial_state_values, trial._trial_id, state=TrialState.RUNNING):
                    continue
            except UpdateFinishedTrialError:
                continue
            if self._has_elder(trial):
                self._fail(trial._trial_id, SUPERSEDED)
                continue
            study = self._study(make_sampler(trial.number))
            patiently(study.get_trials, deepcopy=False)  # else Optuna's cache knows no trial of this number
            return patiently(Trial, study, trial._trial_id)
        return None

    def _has_elder(self, trial: FrozenTrial) -> bool:
        """Whether another attempt at it, queued earlier, is open or done. Two workers that find the same trial lost may
        both queue it; both look here, and the later attempt gives way."""
        return any(
            other.number < trial.number and trial_number(other) == trial_number(trial) and not is_lost(other)
            for other in self.all()
        )

    def recover(self) -> None:
        """Queues again what dead workers had."""
        patiently(optuna.storages.fail_stale_trials, self._study())
        # Optuna fails a trial and then queues it; a worker killed in between leaves it failed.
        queue_again = RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES)
        for trial in by_number(self.all()).values():
            if is_lost(trial):
                patiently(queue_again, self._study(), trial)

    def give_back(self, trial: Trial) -> None:
        """Another worker may have it at once."""
        with contextlib.suppress(UpdateFinishedTrialError):
            patiently(self._storage.set_trial_state_values, trial._trial_id, state=TrialState.FAIL)
        self.recover()

    def complete(self, trial: Trial, values: list[float]) -> bool:
        """Whether it was still this worker's to tell; as the next two."""
        return self._tell(trial._trial_id, TrialState.COMPLETE, values)

    def prune(self, trial: Trial) -> bool:
        return self._tell(trial._trial_id, TrialState.PRUNED)

    def fail(self, trial: Trial, reason: str) -> bool:
        return self._fail(trial._trial_id, reason)

    def _fail(self, trial_id: int, reason: str) -> bool:
        try:
            patiently(self._storage.set_trial_user_attr, trial_id, FAILURE, reason)
        except UpdateFinishedTrialError:
            return False
        return self._tell(trial_id, TrialState.FAIL)

    def _tell(self, trial_id: int, state: TrialState, values: list[float] | None = None) -> bool:
        try:
            return patiently(self._storage.set_trial_state_values, trial_id, state=state, values=values)
        except UpdateFinishedTrialError:  # perhaps by an attempt whose answer was lost
            return patiently(self._storage.get_trial, trial_id).state == state

    def note(self, trial: Trial, **attributes) -> bool:
        """Keeps figures with the trial; False if it is no longer this worker's."""
        try:
            for name, value in attributes.items():
                patiently(self._storage.set_trial_user_attr, trial._trial_id, name, value)
        except UpdateFinishedTrialError:
            return False
        return True

    def _beat(self, trial_id: int) -> None:
        # Of two that write the first one together, one is refused; the other's will do.
        with contextlib.suppress(sqlalchemy.exc.IntegrityError, *AWAY):
            self._storage.record_heartbeat(trial_id)

    @contextlib.contextmanager
    def heartbeat(self, trial: Trial):
        """Says that this worker lives, while entered; gives an event that is set when the trial was taken from it."""
        over, lost = threading.Event(), threading.Event()

        def beat():
            while not over.wait(self._storage.get_heartbeat_interval()):
                self._beat(trial._trial_id)
                with contextlib.suppress(*AWAY):
                    if self._storage.get_trial(trial._trial_id).state != TrialState.RUNNING:
                        lost.set()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield lost
        finally:
            over.set()
            thread.join()
