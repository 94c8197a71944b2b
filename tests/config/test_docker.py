"""What a ``docker run`` passes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.docker import Passed, Run, run


@pytest.mark.parametrize(
    "command", ["", "npx run", "docker", "docker build -e A .", "docker-run -e A image", "rundocker run -e A image"]
)
def test_other_commands_are_no_run(command: str) -> None:
    """Only run of docker and its kin is one."""
    assert None is run(command.split())


A = Passed(name="A")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("docker run image", Run(passed=())),
        ("docker run -e A image", Run(passed=(A,))),
        ("docker run -eA image", Run(passed=(A,))),
        ("docker run -e=A image", Run(passed=(A,))),
        ("docker run --env A image", Run(passed=(A,))),
        ("docker run --env=A image", Run(passed=(A,))),
        ("docker run -i --rm -e A -e B=c image", Run(passed=(A, Passed(name="B", value="c")))),
        ("docker run -ite A image", Run(passed=(A,))),
        ("docker run -it -e B= image", Run(passed=(Passed(name="B", value=""),))),
        ("docker run image -e A", Run(passed=())),
        ("docker run --rm image -e A", Run(passed=())),
        ("docker run -v /a:/b image -e A", Run(passed=())),
        ("docker run --name x -p 1:2 -e A image -e B", Run(passed=(A,))),
        ("docker run --name=x -e A image", Run(passed=(A,))),
        ("docker run -- image -e A", Run(passed=())),
        ("docker run -e", Run(passed=(Passed(name=""),))),
        ("docker run --name", Run(passed=())),
        ("docker container run -e A image", Run(passed=(A,))),
        ("docker --context x run -e A image", Run(passed=(A,))),
        ("/usr/bin/podman run -e A* --env-host image", Run(passed=(Passed(name="A*"),), everything=True)),
        ("nerdctl run -e A image", Run(passed=(A,))),
    ],
)
def test_finds_the_variables(command: str, expected: Run) -> None:
    """Every way to pass a variable is found, up to the image; what follows it is the container's own."""
    assert expected == run(command.split())


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Run(passed=()), False),
        (Run(passed=(A,)), True),
        (Run(passed=(Passed(name="A", value="x"),)), False),
        (Run(passed=(Passed(name="A*"),)), True),
        (Run(passed=(Passed(name="*"),)), True),
        (Run(passed=(Passed(name="B*"),)), False),
        (Run(passed=(), everything=True), True),
    ],
)
def test_knows_what_arrives(found: Run, *, expected: bool) -> None:
    """A variable arrives by its name, by a pattern, or with all others; not where another value stands."""
    assert expected == found.passes("A")


@given(st.lists(st.text(alphabet="-e=Arun dockr", max_size=8)))
def test_never_fails(arguments: list[str]) -> None:
    """Any arguments have an answer."""
    assert None is not run(["docker", "run", *arguments])
