"""Programs that take turns: the one side of the protocol that tests/bench/turns/main.cc describes, and what is made
of the seconds: ratios of pairs, their median and spread, and whether the machine held still meanwhile."""

import dataclasses
import math
import select
import statistics
import subprocess
import time
import typing

PAUSE_S = 0.05  # between turns: threads of BLAS and OpenMP spin for a while after their work
PATIENCE_S = 600  # for one answer
STEADY = 0.15  # by so much a probe may move and its rows still be judged


class TurnError(Exception):
    """A program could not do what it was asked."""


class Program:
    """A child that answers lines with lines. It is killed when it does not answer in time."""

    def __init__(self, command, env=None):
        self.name = command[-1]
        self.child = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = {}

    def ask(self, *fields):
        """The fields of the answer, as {name: number}."""
        try:
            self.child.stdin.write("\t".join(fields) + "\n")
            self.child.stdin.flush()
            if not select.select([self.child.stdout], [], [], PATIENCE_S)[0]:
                self.close()
                raise TurnError(f"{self.name}: no answer to {' '.join(fields)} in {PATIENCE_S} seconds")
            answer = self.child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise TurnError(f"{self.name}: ended at {' '.join(fields)}")
        kind, *rest = answer.rstrip("\n").split("\t")
        if kind == "error":
            raise TurnError(f"{self.name}: {' '.join(fields)}: {' '.join(rest)}")
        return {key: float(value) for key, value in (field.split("=", 1) for field in rest)}

    def close(self):
        self.child.stdin.close()
        try:
            self.child.wait(5)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


@dataclasses.dataclass
class Session:
    """An operation of a program, with the settings that it is prepared with."""

    program: str
    operation: str
    settings: dict
    facts: dict = dataclasses.field(default_factory=dict)

    def fields(self):
        return [self.operation] + [f"{key}={value}" for key, value in self.settings.items()]


@dataclasses.dataclass
class Row:
    """One line of the table. ours, peer and limit are rates in `unit` of one round: called with its seconds and the
    facts, both by session. A ratio is ours over peer's."""

    operation: str
    unit: str
    threads: int
    ours: typing.Callable
    peer: typing.Callable
    limit: typing.Callable | None = None
    probe: str | None = None  # the session that says whether the machine held still
    must: float | None = None
    # Called with the facts: what makes the two works unequal, or None.
    unequal: typing.Callable | None = None


def take_turns(sessions, ask, rounds):
    """Prepares the sessions and repeats them in turns, A B C A B C ..., `rounds` times. Returns the rounds, each
    {session: seconds}. ask(session name, session, command) -> answer."""
    for name, session in sessions.items():
        session.facts = ask(name, session, "prepare")
    readings = []
    for _ in range(rounds):
        reading = {}
        for name, session in sessions.items():
            time.sleep(PAUSE_S)
            answer = ask(name, session, "turn")
            reading[name] = answer.pop("seconds")
            session.facts.update(answer)
        readings.append(reading)
    for name, session in sessions.items():
        ask(name, session, "drop")
    return readings


def moved(seconds):
    """By what share a probe moved from the start of the rounds to their end: medians of three."""
    ends = min(3, len(seconds))
    return abs(statistics.median(seconds[-ends:]) / statistics.median(seconds[:ends]) - 1)


def spread(values):
    """The middle half's width over the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return (high - low) / middle if middle else math.inf


def measured(row, readings, facts):
    """The row as the JSON file has it, and whether the probe held still. None where noise swallowed the row."""
    def values(rate):
        return [rate(reading, facts) for reading in readings]

    ours, peer = values(row.ours), values(row.peer)
    pairs = [(a, b) for a, b in zip(ours, peer) if 0 < a < math.inf and 0 < b < math.inf]
    if 2 * len(pairs) <= len(readings):
        return None, False
    ratios = [a / b for a, b in pairs]
    limit = values(row.limit) if row.limit else []
    shares = [a / b for a, b in zip(ours, limit) if 0 < a < math.inf]
    steady = row.probe is None or moved([reading[row.probe] for reading in readings]) <= STEADY
    return {"operation": row.operation, "ours": statistics.median([a for a, _ in pairs]),
            "peer": statistics.median([b for _, b in pairs]), "ratio": statistics.median(ratios),
            "share_of_limit": statistics.median(shares) if shares else None, "must": row.must,
            "spread": spread(ratios), "unit": row.unit, "threads": row.threads}, steady
