"""Losses for learning from weak labels. Each is `loss(log_probs, targets, progress) -> (B,)`, in nats.

`log_probs` (B, 2) are the log-probabilities of the two label words under the full-vocabulary softmax, `targets` (B,)
are P(label = 1) as given to `lab.fit`, and `progress` in [0, 1] is the share of the training steps done.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from outlearn.errors import InvalidInputError

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor", float], "Tensor"]


def xent(log_probs: "Tensor", targets: "Tensor", progress: float) -> "Tensor":
    """Cross-entropy with soft targets: `-(t log P(1) + (1 - t) log P(0))`. Returns (B,), >= 0."""
    return -(targets * log_probs[:, 1] + (1 - targets) * log_probs[:, 0])


def logconf(alpha: float = 0.75, warmup: float = 0.2) -> Loss:
    """The auxiliary confidence loss: `(1 - a) CE(f, weak) + a CE(f, f hardened)`.

    The student's own predictions are hardened at the batch's median, so that both classes keep their share; `a`
    rises linearly to `alpha` over the first `warmup` of the steps. Source: Burns et al. 2023, "Weak-to-Strong
    Generalization", section 4.3 and appendix A.4.

    Args:
        alpha: weight of the student's own opinion, in [0, 1]; 0 is `xent`.
        warmup: share of the steps over which `alpha` is reached, in (0, 1].
    """

    def loss(log_probs: "Tensor", targets: "Tensor", progress: float) -> "Tensor":
        a = alpha * min(1.0, progress / warmup)
        margin = (log_probs[:, 1] - log_probs[:, 0]).detach()
        hardened = (margin > margin.median()).to(targets.dtype)
        return (1 - a) * xent(log_probs, targets, progress) + a * xent(log_probs, hardened, progress)

    return loss


NAMED: dict[str, Loss] = {"xent": xent, "logconf": logconf()}


def named_loss(loss: Any) -> Loss:
    """The loss with this name, or the callable itself.

    Raises:
        InvalidInputError: there is no loss of this name.
    """
    if callable(loss):
        return loss  # type: ignore[no-any-return]
    if not isinstance(loss, str) or loss not in NAMED:
        raise InvalidInputError(f"no loss {loss!r}; there are {', '.join(NAMED)}, or pass a callable")
    return NAMED[loss]
