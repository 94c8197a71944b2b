"""
The state machine beside a source, a store and a disk, with crashes and failures at every step.

The source has two users who take turns, or one. The store has what is current and
what is staged. The disk has the rotation as it was written last. A step has its
effect or not, and is reported as done, as failed, or not at all. This module
refuses to know the order of the steps: it only does what it is told, twice if
need be.
"""

from typing import Final

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.core.rotation import Do, Over, Rotation, Step, abandoned, begun, done, failed, move, promoted, resumed

FATES: Final = ("done", "done", "done", "failed before", "failed after", "crash before", "crash after")
GRACE: Final = 600.0

Credential = tuple[str, str]
"""A user and a password."""


class World(RuleBasedStateMachine):
    """Two users who take turns: at no moment may what is current, or not yet retired, be refused."""

    users: tuple[str, ...] = ("a", "b")

    def __init__(self) -> None:
        """Begin with a password of the first user, and no rotation."""
        super().__init__()
        self.now = 0.0
        self.made = 0
        self.logins: dict[str, str | None] = dict.fromkeys(self.users) | {self.users[0]: "p0"}
        self.current: Credential = (self.users[0], "p0")
        self.version = 1
        self.pending: Credential | None = None
        self.previous: Credential | None = None
        self.disk: Rotation | None = None
        self.holders = 1
        self.tested = {self.current}
        self.tokens: set[str] = set()
        self.endings: list[bool] = []

    @rule(shared=st.booleans())
    @precondition(lambda self: self.disk is None)
    def begin(self, *, shared: bool) -> None:
        """Have a new rotation on disk."""
        self.made += 1
        self.tokens = {f"t{self.made}"}
        self.disk = begun(f"t{self.made}", now=self.now, grace=GRACE, shared=shared)

    @rule(fate=st.sampled_from(FATES))
    @precondition(lambda self: self.disk is not None)
    def go_on(self, fate: str) -> None:
        """Do what is to be done, if anything, as fate has it."""
        assert self.disk is not None
        self.disk, wanted = move(self.disk, self.now, holders=self.holders)
        if not isinstance(wanted, Do):
            return
        self.tokens.add(self.disk.token)
        happened = fate not in {"failed before", "crash before"}
        became = self._report(wanted.step, works=self._act(wanted.step)) if happened else self.disk
        if fate.startswith("failed") and self.disk is not None:
            became = failed(self.disk, now=self.now, error="no")
        elif fate.startswith("crash"):
            became = self.disk
        if isinstance(became, Over):
            self.endings.append(became.promoted)
            self.disk = None
        else:
            self.disk = became

    def _act(self, step: Step) -> bool:
        """Do one step, perhaps again; return whether it worked."""
        if step == "create":
            self._create()
        elif step == "retire":
            self._let_go(self.previous)
        elif step == "abandon" and self.pending != self.current:
            self._let_go(self.pending)
            self.logins[self.current[0]] = self.current[1]
        elif self.pending is not None and step == "set":
            self.logins[self.pending[0]] = self.pending[1]
        elif self.pending is not None and step == "test":
            if not self._logs_in(self.pending):
                return False
            self.tested.add(self.pending)
        elif self.pending is not None and step == "promote" and self.current != self.pending:
            self.current, self.version = self.pending, self.version + 1
        return True

    def _create(self) -> None:
        if self.pending is None:
            self.previous = self.current
            user = next((each for each in self.users if each != self.current[0]), self.current[0])
            self.pending = (user, f"p{self.made}")

    def _let_go(self, credential: Credential | None) -> None:
        """Make a credential worthless, unless its user is the current one, and forget what is staged."""
        if credential is not None and credential[0] != self.current[0]:
            self.logins[credential[0]] = None
        self.pending = self.previous = None

    def _report(self, step: Step, *, works: bool) -> Rotation | Over:
        """Tell the machine what came of a step."""
        assert self.disk is not None
        if not works:
            return failed(self.disk, now=self.now, error="the test failed")
        if step == "abandon" and self.pending is not None:
            return promoted(self.disk, now=self.now, after=self.version)
        return done(self.disk, step, now=self.now, before=self.version, after=self.version)

    def _logs_in(self, credential: Credential) -> bool:
        return self.logins[credential[0]] == credential[1]

    @rule(by=st.sampled_from([1.0, 30.0, 61.0, 4000.0, -50.0]))
    def time_passes(self, by: float) -> None:
        """Let time pass, or set the clock back."""
        self.now += by

    @rule(holders=st.integers(0, 2))
    def sessions_come_and_go(self, holders: int) -> None:
        """Change how many hold the previous version."""
        self.holders = holders

    @rule()
    @precondition(lambda self: self.disk is not None)
    def resume(self) -> None:
        """Have an admin say to go on."""
        assert self.disk is not None
        self.disk = resumed(self.disk)

    @rule()
    @precondition(lambda self: self.disk is not None)
    def abandon(self) -> None:
        """Have an admin say to go back, which is refused after a promotion."""
        assert self.disk is not None
        self.disk = abandoned(self.disk) or self.disk

    @rule()
    @precondition(lambda self: self.disk and self.disk.stage in {"set", "test"})
    def meddle(self) -> None:
        """Have somebody at the source lock what is pending, so that its test fails."""
        if self.pending is not None and self.pending[0] != self.current[0]:
            self.logins[self.pending[0]] = None

    @invariant()
    def what_is_current_works(self) -> None:
        """Whoever asks gets something that the source takes."""
        if len(self.users) > 1:
            assert self._logs_in(self.current)

    @invariant()
    def what_is_current_was_tested(self) -> None:
        """What failed its test, or was never tested, is not current."""
        assert self.current in self.tested

    @invariant()
    def what_is_held_works(self) -> None:
        """The previous version works until it is retired."""
        retiring = self.disk is not None and self.disk.stage == "retire"
        if len(self.users) > 1 and self.previous is not None and not retiring:
            assert self._logs_in(self.previous)

    @invariant()
    def one_token(self) -> None:
        """All steps of a rotation have its token."""
        assert len(self.tokens) <= 1

    def teardown(self) -> None:
        """Left to itself, without more failures, it comes to one of its two ends, and both work."""
        for _ in range(50):
            if self.disk is None:
                break
            self.now += 4000.0
            self.go_on("done")
        assert (None, None, True) == (self.disk, self.pending, self._logs_in(self.current))


class OneUser(World):
    """One user: there is a gap while the password changes, and none after."""

    users = ("a",)

    @invariant()
    def there_is_always_a_way(self) -> None:
        """What is current works, or what is pending does."""
        ways = [each for each in (self.current, self.pending) if each is not None]
        assert any(self._logs_in(each) for each in ways)


TestTwoUsers = World.TestCase
TestTwoUsers.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)

TestOneUser = OneUser.TestCase
TestOneUser.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
