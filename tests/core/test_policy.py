"""Who may have what, case by case. This module refuses to know how a selector is attested: here they are words."""

from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.model import Policy, Process, SecretRule, ServerRule, Workload
from broker.core.policy import Allowed, Ask, Refused, decide

SELECTORS: Final = ["uid:1000", "uid:1001", "gid:1000", "unit:mcp-app.service", "unit:mcp-app@.service"]


def server(name: str, selectors: str, grants: str) -> ServerRule:
    """Return a rule from words."""
    return ServerRule(name=name, selectors=frozenset(selectors.split()), grants=frozenset(grants.split()))


def policy(*servers: ServerRule, secrets: str) -> Policy:
    """Return all rules together, with secrets by these names."""
    return Policy(
        servers={rule.name: rule for rule in servers},
        secrets={name: SecretRule(name=name, backend="local", ttl=60.0) for name in secrets.split()},
    )


POLICY: Final = policy(
    server("app", "uid:1000 unit:mcp-app.service", "db cache"),
    server("github", "uid:1000", "github"),
    server("mirror", "uid:1001", "github"),
    server("nobody", "", "orphan"),
    server("broken", "uid:1000", "gone"),
    secrets="db cache github orphan unused",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question and its answer: the rule that decides, and what is said."""

    name: str
    holds: str
    ask: Ask
    rule: str | None
    reason: str
    hint: str | None = None
    wants: str = ""
    allowed: bool = False


CASES: Final = [
    Case(
        name="a server whose selectors hold is opened",
        holds="uid:1000 gid:1000",
        ask=Ask(server="github"),
        allowed=True,
        rule="github",
        reason="server 'github': every selector holds",
    ),
    Case(
        name="a server is not opened where one selector of two is missing",
        holds="uid:1000 gid:1000",
        ask=Ask(server="app"),
        rule="app",
        reason="server 'app' wants unit:mcp-app.service, which the caller does not hold",
        hint="change the selectors of [servers.app], or ask as what they name",
        wants="unit:mcp-app.service",
    ),
    Case(
        name="a server without selectors is opened by nobody",
        holds="uid:1000",
        ask=Ask(server="nobody"),
        rule="nobody",
        reason="server 'nobody' has no selectors, so nobody matches",
        hint="add selectors to [servers.nobody]",
    ),
    Case(
        name="a server that is not there is refused, with the nearest name",
        holds="uid:1000",
        ask=Ask(server="githup"),
        rule=None,
        reason="no server is called 'githup'",
        hint="did you mean 'github'? mcp-broker server list",
    ),
    Case(
        name="a server that is like no other is refused without a guess",
        holds="uid:1000",
        ask=Ask(server="zzzzzz"),
        rule=None,
        reason="no server is called 'zzzzzz'",
        hint="mcp-broker server list",
    ),
    Case(
        name="a secret that the opened server is granted is given",
        holds="uid:1000 unit:mcp-app.service",
        ask=Ask(server="app", secret="db"),
        allowed=True,
        rule="app",
        reason="server 'app': every selector holds, and it is granted",
    ),
    Case(
        name="a secret that the opened server is not granted is refused, though another of the caller's is",
        holds="uid:1000 unit:mcp-app.service",
        ask=Ask(server="app", secret="github"),
        rule="app",
        reason="server 'app' is not granted the secret 'github'",
        hint='add allow = ["github"] to [servers.app]',
    ),
    Case(
        name="a secret for a server whose selectors do not hold is refused",
        holds="uid:1001",
        ask=Ask(server="github", secret="github"),
        rule="github",
        reason="server 'github' wants uid:1000, which the caller does not hold",
        hint="change the selectors of [servers.github], or ask as what they name",
        wants="uid:1000",
    ),
    Case(
        name="a secret by its name alone is given by the first rule that matches",
        holds="uid:1001",
        ask=Ask(secret="github"),
        allowed=True,
        rule="mirror",
        reason="server 'mirror': every selector holds, and it is granted",
    ),
    Case(
        name="of several rules that grant it, the one that came nearest is named",
        holds="uid:1002",
        ask=Ask(secret="github"),
        rule="github",
        reason="server 'github' wants uid:1000, which the caller does not hold",
        hint="change the selectors of [servers.github], or ask as what they name",
        wants="uid:1000",
    ),
    Case(
        name="a secret that only a server without selectors is granted is given to nobody",
        holds="uid:1000",
        ask=Ask(secret="orphan"),
        rule="nobody",
        reason="server 'nobody' has no selectors, so nobody matches",
        hint="add selectors to [servers.nobody]",
    ),
    Case(
        name="a secret that no server is granted is given to nobody",
        holds="uid:1000",
        ask=Ask(secret="unused"),
        rule=None,
        reason="no server is granted the secret 'unused'",
        hint='add allow = ["unused"] to a server in the config; one without a command is for scripts',
    ),
    Case(
        name="a secret that nobody ever heard of is refused, with the nearest name",
        holds="uid:1000",
        ask=Ask(secret="cash"),
        rule=None,
        reason="no secret is called 'cash' and no server is granted one",
        hint="did you mean 'cache'? mcp-broker secret list",
    ),
    Case(
        name="a grant of a secret that is not there gives nothing",
        holds="uid:1000",
        ask=Ask(secret="gone"),
        rule="broken",
        reason="no secret is called 'gone'",
        hint="mcp-broker check",
    ),
    Case(
        name="who asks for nothing gets nothing",
        holds="uid:1000",
        ask=Ask(),
        rule=None,
        reason="nothing was asked for",
    ),
    Case(
        name="who holds nothing gets nothing",
        holds="",
        ask=Ask(server="github"),
        rule="github",
        reason="server 'github' wants uid:1000, which the caller does not hold",
        hint="change the selectors of [servers.github], or ask as what they name",
        wants="uid:1000",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_each_question_has_one_answer(case: Case) -> None:
    """A question is answered by the rule, with the reason and with the hint that the table says."""
    decision = decide(POLICY, frozenset(case.holds.split()), case.ask)
    if isinstance(decision, Allowed):
        assert (True, case.rule, case.reason) == (case.allowed, decision.rule.name, decision.reason)
    else:
        expected = (False, case.rule, case.reason, case.hint, frozenset(case.wants.split()))
        assert expected == (case.allowed, decision.rule, decision.reason, decision.hint, decision.wants)


def test_of_rules_that_miss_something_the_one_that_misses_least_is_named() -> None:
    """The rule that a refusal names is the one with the fewest selectors missing, one without any last."""
    rules = policy(
        server("a", "", "s"),
        server("b", "uid:1 gid:1 unit:x.service", "s"),
        server("c", "uid:1 gid:1", "s"),
        secrets="s",
    )
    decision = decide(rules, frozenset({"uid:1"}), Ask(secret="s"))
    assert isinstance(decision, Refused)
    assert ("c", frozenset({"gid:1"})) == (decision.rule, decision.wants)


def test_an_allowed_secret_is_the_one_that_was_asked_for() -> None:
    """What is allowed names the secret with its backend and its time."""
    decision = decide(POLICY, frozenset({"uid:1000"}), Ask(secret="github"))
    assert isinstance(decision, Allowed)
    assert SecretRule(name="github", backend="local", ttl=60.0) == decision.secret


RULES: Final = st.builds(
    ServerRule,
    name=st.sampled_from("abcd"),
    selectors=st.frozensets(st.sampled_from(SELECTORS)),
    grants=st.frozensets(st.sampled_from("stu")),
)
ASKS: Final = st.builds(
    Ask,
    server=st.none() | st.sampled_from("abcde"),
    secret=st.none() | st.sampled_from("stuv"),
)


@given(rules=st.lists(RULES), holds=st.frozensets(st.sampled_from(SELECTORS)), ask=ASKS)
def test_nothing_is_allowed_but_by_a_rule_that_says_so(
    rules: list[ServerRule], holds: frozenset[str], ask: Ask
) -> None:
    """Whatever is allowed is so by a rule of the policy that has selectors, all of them held, and that grants it."""
    rule_by_name = {rule.name: rule for rule in rules}
    secrets = {name: SecretRule(name=name, backend="local", ttl=1.0) for name in "stv"}
    decision = decide(Policy(servers=rule_by_name, secrets=secrets), holds, ask)
    may = [
        rule
        for rule in rule_by_name.values()
        if rule.selectors
        and rule.selectors <= holds
        and ask.server in {None, rule.name}
        and (ask.secret is None or (ask.secret in rule.grants and ask.secret in secrets))
        and ask != Ask()
    ]
    assert bool(may) == isinstance(decision, Allowed)
    assert isinstance(decision, Refused) or decision.rule in may


@given(rules=st.lists(RULES), holds=st.frozensets(st.sampled_from(SELECTORS)), ask=ASKS)
def test_more_selectors_never_allow_less(rules: list[ServerRule], holds: frozenset[str], ask: Ask) -> None:
    """Who holds every selector is allowed whatever somebody who holds some of them is."""
    secrets = {name: SecretRule(name=name, backend="local", ttl=1.0) for name in "stuv"}
    rules_there = Policy(servers={rule.name: rule for rule in rules}, secrets=secrets)
    some, every = (decide(rules_there, held, ask) for held in (holds, frozenset(SELECTORS)))
    assert not isinstance(some, Allowed) or isinstance(every, Allowed)


def test_a_workload_holds_what_the_kernel_says_of_it() -> None:
    """The selectors of a process are its user, its groups, its unit and the template of that unit."""
    workload = Workload(
        process=Process(boot="b", pid=7, start=1, uid=1000),
        gid=1000,
        groups=frozenset({27, 1000}),
        unit="mcp-app@7-1-0.service",
    )
    expected = {"uid:1000", "gid:1000", "gid:27", "unit:mcp-app@7-1-0.service", "unit:mcp-app@.service"}
    assert expected == workload.selectors


@pytest.mark.parametrize(
    ("unit", "expected"),
    [(None, set()), ("mcp-app.service", {"unit:mcp-app.service"})],
    ids=["no unit", "a unit that is no instance"],
)
def test_a_unit_that_is_no_instance_has_no_template(unit: str | None, expected: set[str]) -> None:
    """A process in no unit holds none, and one in a plain unit holds that one alone."""
    workload = Workload(process=Process(boot="b", pid=7, start=1, uid=0), gid=0, unit=unit)
    assert expected == {fact for fact in workload.selectors if fact.startswith("unit:")}


def test_a_secret_is_granted_by_servers_in_the_order_of_their_names() -> None:
    """The servers that may have a secret come in the order of their names, however the config names them."""
    rules = policy(server("b", "uid:1", "s"), server("a", "uid:1", "s t"), secrets="s t")
    granting = {secret: [rule.name for rule in found] for secret, found in rules.granting.items()}
    assert {"s": ["a", "b"], "t": ["a"]} == granting
