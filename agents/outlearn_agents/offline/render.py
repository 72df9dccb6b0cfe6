"""Compositions as Python: readable method files on the public contract, for people and other agents to learn from."""

import jinja2

from outlearn_agents.offline.recipes import Composition

TARGETS = {
    "hard": "the teacher's answers",
    "soft": "the teacher's probabilities",
    "prior": "the teacher's answers combined with the untrained student's",
}
SELECTS = {
    "all": "all items",
    "confident": "the items of which the teacher is surest",
    "zsagree": "the items on which the untrained student agrees",
    "early": "the items on which a briefly trained student agrees",
}
LOSSES = {"xent": "cross-entropy", "logconf": "the confidence loss"}
LENGTHS = {"usual": "as long as usual", "short": "cut short, before the teacher's mistakes are learned"}
THENS = {
    "stop": "one round",
    "distil": "then a fresh student learns the first one's answers",
    "recheck": "then a fresh student learns where the first one and the teacher agree",
    "pair": "then a second student learns where the first one and the teacher agree, and both vote",
}

TEMPLATE = '''"""A composed method.

Targets: {{ target }}.
Items: {{ select }}.
Loss: {{ loss_name }}.
Training: {{ length }}.
Rounds: {{ then }}.
"""

import numpy as np
{%- if c.loss == "logconf" %}

from outlearn_training.losses import logconf
{%- endif %}


def method(lab, seed):
    weak = lab.weak_labels()
{%- if c.target == "hard" %}
    targets = (weak > 0.5).astype(float)
{%- elif c.target == "soft" %}
    targets = weak
{%- else %}
    # the untrained student is a second witness: add its log-odds, centred to take its bias out
    own = log_odds(lab.zero_shot())
    targets = (log_odds(weak) + {{ c.share("prior") }} * (own - np.median(own)) > 0).astype(float)
{%- endif %}
{%- if c.select == "all" %}
    weights = np.ones(len(targets))
{%- elif c.select == "confident" %}
    # the teacher errs most where it hesitates
    sure = np.abs(weak - 0.5)
    weights = (sure >= np.quantile(sure, 1 - {{ c.share("confident") }})).astype(float)
{%- elif c.select == "zsagree" %}
    # the untrained student errs elsewhere than the teacher: keep what both say
    own_scores = lab.zero_shot()
    weights = ((own_scores > np.median(own_scores)) == (targets > 0.5)).astype(float)
{%- else %}
    # a student that has trained for a moment knows what is simple, not yet the teacher's mistakes
    early = lab.fit(targets, epochs={{ c.share("early") }} * lab.task.student_tuning.epochs).predict()
    weights = ((early > 0.5) == (targets > 0.5)).astype(float)
{%- endif %}
    lab.log(kept=weights.mean())
{%- set how = ', loss=logconf(' ~ c.share("logconf") ~ ')' if c.loss == "logconf" else '' %}
{%- if c.length == "short" %}
    # the teacher's mistakes are learned last: stop before
    epochs = {{ c.share("short") }} * lab.task.student_tuning.epochs
{%- set how = how ~ ", epochs=epochs" %}
{%- endif %}
{%- if c.then == "stop" %}
    return lab.fit(targets, weights{{ how }})
{%- else %}
    student = lab.fit(targets, weights{{ how }})
    answers = student.predict() > 0.5
{%- if c.then == "distil" %}
    # what the first student did not pick up from the teacher's mistakes, the second will not see
    return lab.fit(answers.astype(float))
{%- else %}
    agreed = (answers == (weak > 0.5)).astype(float)
    lab.log(agreed=agreed.mean())
    second = lab.fit(answers.astype(float), agreed{{ how }})
    return {{ "[student, second]" if c.then == "pair" else "second" }}
{%- endif %}
{%- endif %}
{%- if c.target == "prior" %}


def log_odds(p):
    p = np.clip(p, 1e-4, 1 - 1e-4)
    return np.log(p / (1 - p))
{%- endif %}
'''

_ENVIRONMENT = jinja2.Environment(keep_trailing_newline=True, autoescape=False, undefined=jinja2.StrictUndefined)  # noqa: S701


def summarize(composition: Composition) -> str:
    """A composition in one sentence."""
    c = composition
    how = f"by {LOSSES[c.loss]}, {LENGTHS[c.length]}; {THENS[c.then]}."
    return f"Learn {TARGETS[c.target]} on {SELECTS[c.select]}, {how}"


def render(composition: Composition) -> str:
    """The method file of a composition."""
    c = composition
    words = {
        "target": TARGETS[c.target],
        "select": SELECTS[c.select],
        "loss_name": LOSSES[c.loss],
        "length": LENGTHS[c.length],
        "then": THENS[c.then],
    }
    return _ENVIRONMENT.from_string(TEMPLATE).render(c=c, **words)
