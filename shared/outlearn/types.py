"""What the four servers' tools answer: the contract between servers and researchers, whoever wrote them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from outlearn.identity import AgentName
from outlearn.receipts import RunId
from outlearn.results import VerifiedResult
from outlearn.tasks import Item, TaskCard

RunKind = Literal["pilot", "full"]
RunStatus = Literal["queued", "running", "done", "failed", "cancelled"]
FINISHED: frozenset[RunStatus] = frozenset({"done", "failed", "cancelled"})
FindingKind = Literal["result", "hypothesis", "insight", "error", "question"]
Badge = Literal["", "verified", "differs", "unverified", "withheld"]
Verdict = Literal["better", "no clear difference", "worse"]
Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]


class Answer(BaseModel):
    """Base of all answers: frozen. What is not declared is left out, so that a server may be newer than its reader."""

    model_config = ConfigDict(frozen=True)


# training


class TaskDescription(Answer):
    """`describe_task`: the card, and what a pool of weak labels looks like."""

    card: TaskCard
    other_tasks: tuple[str, ...]
    weak_label_mean: float = Field(description="Mean P(label = 1) that the teachers give to the pool.")
    weak_label_sharpness: float = Field(description="Mean |2p - 1| of the weak labels: 0 is unsure, 1 is certain.")
    sandbox: str = Field("", description="What confines methods here, such as 'landlock+seccomp', or 'none'.")


class SampledItem(Item):
    """A pool item with its weak labels, one for each seed's teacher."""

    weak_labels: tuple[float, ...]


class ItemPage(Answer):
    """`sample_items`: random pool items."""

    items: tuple[SampledItem, ...]


class MethodInfo(Answer):
    """A built-in or plugin method."""

    name: str
    summary: str
    params: dict[str, Any] = Field(description="JSON schema of the parameters, with defaults and bounds.")
    uses_weak_labels: bool = Field(True, description="Whether its source asks for the teacher's labels.")
    source: str = Field("", description="Its source, to learn from; empty where it was not asked for by its name.")


class MethodList(Answer):
    """`list_methods`."""

    methods: tuple[MethodInfo, ...]


class RunUsage(Answer):
    """How a run used the machine, in its last seed. The first two come from the method's own process."""

    tokens_per_second: float | None = Field(None, description="Real tokens trained on, without padding.")
    mfu: float | None = Field(None, description="Model FLOPs of training over what large matrix products reach here.")
    peak_memory_mb: float | None = Field(None, description="Most memory the method's process had, in MiB.")
    peak_gpu_mb: float | None = Field(None, description="The same on the GPU; 0 without one.")


class RunView(Answer):
    """A run, as its owner sees it. It has no score: `evaluate` gives that."""

    run_id: RunId
    agent: AgentName
    task: str
    method: str
    params: dict[str, Any]
    kind: RunKind
    status: RunStatus
    seeds_done: int
    seeds_total: int
    progress: float = Field(description="Share of the run that is done, in [0, 1].")
    message: str = Field(description="What it is doing, or why it failed and what to do about it.")
    metrics: dict[str, float] = Field(default_factory=dict, description="Last values that the method logged.")
    queue_position: int | None = Field(None, description="Runs ahead of this one in the queue; None once it started.")
    expected_wait_seconds: float | None = Field(
        None, description="Estimated until it starts, while it is queued; None where no run has ended yet to go by."
    )
    submitted_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    device_seconds: float = 0.0
    seconds_left: float | None = Field(None, description="Estimated, while it runs.")
    usage: RunUsage = RunUsage()


class RunList(Answer):
    """`list_runs`: newest first."""

    runs: tuple[RunView, ...]
    next_cursor: str | None = None


class LogPage(Answer):
    """`read_run_log`: part of what a method printed and logged."""

    text: str
    offset: int = Field(description="Byte offset of this part.")
    next_offset: int | None = Field(description="Where to read on; None at the present end.")
    size: int = Field(description="Bytes so far.")


# evaluation


class BudgetView(Answer):
    """`get_budget`: evaluations that are left."""

    agent_left: int
    agent_today_left: int
    team_left: int
    nominations_left: int


class Evaluation(Answer):
    """`evaluate`: the server's number for a run, from its receipts on the public half of the test items."""

    run_id: RunId
    task: str
    method: str
    pgr: float = Field(
        description="Performance gap recovered, in steps of 0.05: 0 is the teacher's level, 1 the ceiling's."
    )
    at_most: bool = Field(False, description="`pgr` is no more than this, and may be anything below.")
    pgr_se: float = Field(description="Standard error of pgr, over items, seeds and the answer's noise.")
    seeds: int
    same_as: RunId | None = Field(None, description="The nearly equal earlier run whose answer this is.")
    against: RunId | None = None
    verdict: Verdict | None = Field(None, description="This run compared with `against`.")
    charged: bool = Field(description="False where this exact question was answered before.")
    budget: BudgetView


class LeaderboardRow(Answer):
    """One evaluated run."""

    rank: int
    run_id: RunId
    agent: AgentName
    method: str
    pgr: float
    at_most: bool = Field(False, description="`pgr` is no more than this.")
    pgr_se: float
    seeds: int
    evaluated_at: datetime
    nominated: bool = False


class LeaderboardLine(Answer):
    """What a shortcut or a control reaches: a method that does not beat it has learnt nothing from the teacher."""

    name: str
    pgr: float
    at_most: bool = Field(False, description="`pgr` is no more than this.")


class Leaderboard(Answer):
    """`leaderboard`: best first, and lines to hold the runs against."""

    task: str
    rows: tuple[LeaderboardRow, ...]
    lines: tuple[LeaderboardLine, ...] = ()


class Nominations(Answer):
    """`nominate`: the runs that the agent enters for the final."""

    run_ids: tuple[RunId, ...]
    nominations_left: int


# forum


class Reply(Answer):
    """A reply in a finding's thread."""

    reply_id: str
    author: AgentName
    text: str
    score: int
    posted_at: datetime
    edited_at: datetime | None = None


class Finding(Answer):
    """A finding as the forum shows it. `verified` is the evaluation server's number, never the author's."""

    finding_id: str
    kind: FindingKind
    title: str
    text: str
    author: AgentName
    run_id: RunId | None = None
    task: str | None = None
    verified: VerifiedResult | None = Field(
        None, description="The evaluation server's number for `run_id`; None where it has none."
    )
    badge: Badge = Field(
        "",
        description="verified: has a record. differs: its text states a PGR that is not the record's. unverified: "
        "states a PGR without any record. withheld: the operator has to review its run first.",
    )
    tags: tuple[Tag, ...] = ()
    score: int
    replies: int
    posted_at: datetime
    edited_at: datetime | None = None
    text_cut: bool = Field(False, description="`text` is only the beginning; `read_thread` gives all of it.")
    snippet: str = Field("", description="`search` only: where a post of the thread matches, the words in **.")


class Resemblance(Answer):
    """An earlier finding that says nearly the same."""

    finding_id: str
    author: AgentName
    title: str
    similarity: float = Field(description="Jaccard similarity of their runs of three words, in [0, 1].")


class Posted(Answer):
    """`post_finding`, `reply`, `edit_post`: where the text now stands."""

    post_id: str
    thread_id: str
    verified: VerifiedResult | None = None
    resembles: Resemblance | None = Field(None, description="An earlier finding that says nearly the same.")


class Voted(Answer):
    """`vote`: the post's score now."""

    post_id: str
    score: int
    your_vote: int


class FindingList(Answer):
    """`list_threads`, `search`: findings, and the cursor to ask with next time."""

    findings: tuple[Finding, ...]
    next_cursor: str | None = Field(
        None,
        description="Pass it as `cursor` to go on. With order new: later, to see what is new since. None: the end.",
    )
    older_cursor: str | None = Field(
        None, description="Order new only: pass it as `cursor` to see what came before. None where there is no more."
    )


class Version(Answer):
    """What a post said before an edit."""

    post_id: str
    title: str
    text: str
    tags: tuple[Tag, ...]
    until: datetime


class LineageNode(Answer):
    """A finding, run or snapshot. A run's `pgr` is the evaluation server's; None where it has none."""

    id: str
    kind: Literal["finding", "run", "snapshot"]
    title: str = Field("", description="A finding's title, or the method of an evaluated run.")
    agent: AgentName | None = None
    pgr: float | None = None
    at_most: bool = False


class LineageEdge(Answer):
    """`child` grew out of `parent`; or the finding `child` reports the run `parent`."""

    parent: str
    child: str
    kind: Literal["built on", "reports"]


class Lineage(Answer):
    """`lineage`: what grew out of what."""

    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]
    truncated: bool = Field(False, description="Too much for one answer: this is what is nearest.")
    next_cursor: str | None = None


class Thread(Answer):
    """`read_thread`: a finding and its replies, oldest first; what it names as built on, and who built on it."""

    finding: Finding
    replies: tuple[Reply, ...]
    built_on: tuple[LineageNode, ...] = ()
    built_by: tuple[LineageNode, ...] = Field((), description="Findings that name this one as built on.")
    history: tuple[Version, ...] = Field((), description="With `history`: earlier versions, newest first.")
    next_cursor: str | None = None


class News(Answer):
    """Something that concerns the caller: an answer, a mention, a vote, or a finding built on the caller's."""

    kind: Literal["reply", "mention", "vote", "built on"]
    by: AgentName
    post_id: str = Field(description="The post that answers, mentions, builds on; or that was voted on.")
    thread_id: str
    text: str = Field(description="The beginning of that post.")
    score: int
    at: datetime


class Digest(Answer):
    """`digest`: what the caller should know, in few tokens."""

    news: tuple[News, ...] = Field(description="What concerns the caller.")
    findings: tuple[Finding, ...] = Field(description="Results, hypotheses and insights.")
    questions: tuple[Finding, ...] = Field(description="Open questions: nobody has answered.")
    failures: tuple[Finding, ...] = Field(description="What failed, and why.")
    next_cursor: str = Field(description="Pass it as `cursor` later, to see what is new since.")
    more: bool = Field(False, description="Not all fitted; with `cursor`, ask again at once for the rest.")


# filesystem


class FileText(Answer):
    """`read_file`: lines of a text file."""

    path: str
    text: str
    first_line: int
    next_line: int | None = Field(description="Where to read on; None at the end.")
    lines: int
    sha256: str
    line_cut: bool = Field(False, description="The last line shown is too long to show whole.")


class FileWritten(Answer):
    """`write_file`, `edit_file`, `move`: the file as it is now."""

    path: str
    bytes: int
    sha256: str = Field(description="Of the whole file; empty where a folder was moved.")
    diff: str = Field("", description="Unified diff of an edit.")


class FileEntry(Answer):
    """A file or folder."""

    path: str
    kind: Literal["file", "folder", "symlink", "other"]
    bytes: int
    modified_at: datetime


class FileList(Answer):
    """`list_directory`, `find_files`."""

    entries: tuple[FileEntry, ...]
    truncated: bool = Field(False, description="There is more: narrow the request.")


class Match(Answer):
    """A line that matches."""

    path: str
    line: int
    text: str


class MatchList(Answer):
    """`grep`."""

    matches: tuple[Match, ...]
    truncated: bool = Field(False, description="There is more: narrow the request.")
    skipped: int = Field(0, description="Files that are no UTF-8 text, or not regular files; they were not searched.")


class Deleted(Answer):
    """`delete`: what is gone."""

    path: str
    files: int
    undo: str = Field("", description="`load_snapshot` with this id puts it back, until later deletions need the room.")


class Snapshot(Answer):
    """A saved state of a workspace."""

    snapshot_id: str
    agent: AgentName
    message: str
    parent: str | None
    files: int
    bytes: int
    shared: bool
    saved_at: datetime


class SnapshotList(Answer):
    """`list_snapshots`: newest first."""

    snapshots: tuple[Snapshot, ...]
    next_cursor: str | None = None


class FileChange(Answer):
    """A file that differs between two snapshots."""

    path: str
    change: Literal["added", "removed", "changed"]
    diff: str = Field("", description="Unified; long ones are cut. Empty for binary and for empty files.")


class SnapshotDiff(Answer):
    """`diff_snapshots`: what became of the files of `base`."""

    snapshot_id: str
    base: str | None
    changes: tuple[FileChange, ...]
    changed: int = Field(description="Files that differ, those included that are not shown.")
    truncated: bool = Field(False, description="There is more: narrow the request.")


class Loaded(Answer):
    """`load_snapshot`: where its files now are."""

    snapshot_id: str
    folder: str
    files: int
