"""An answer as it is told to an agent: two lines."""

from outlearn.results import pgr_text
from outlearn.types import Evaluation


def answer_text(answer: Evaluation) -> str:
    """The score and what it stands on, then what it cost."""
    score = f"{answer.run_id} ({answer.method}, task {answer.task}): PGR {pgr_text(answer.pgr, answer.at_most)}"
    parts = [f"{score} ± {answer.pgr_se:.2f}, {answer.seeds} seeds"]
    if answer.same_as:
        parts.append(f"nearly equal to {answer.same_as}, whose answer this is")
    if answer.against:
        parts.append(f"against {answer.against}: {answer.verdict}")
    left, cost = answer.budget, "Charged" if answer.charged else "Not charged"
    evaluations = f"{left.agent_left} evaluations, {left.agent_today_left} today, {left.team_left} of the team's"
    return "; ".join(parts) + f"\n{cost}. Left: {evaluations}; {left.nominations_left} nominations"
