"""
What the other tests take for granted of the PostgreSQL that they start.

It refuses to test PostgreSQL itself.
"""

from collections.abc import Iterator

import pytest

from tests.live.postgres import Postgres, SqlError

pytestmark = pytest.mark.live("postgresql")


@pytest.fixture
def app(postgres: Postgres) -> Iterator[str]:
    """Make a role that can log in with the password ``made up``; drop it in the end."""
    postgres.sql("create role postgres_test login password 'made up'")
    yield "postgres_test"
    postgres.sql("drop role if exists postgres_test")


def test_rows_come_back_as_text(postgres: Postgres) -> None:
    """Every row of every statement comes back, its values as text, commas and line ends and all."""
    assert [("1", "a,b\nc"), ("2", "")] == postgres.sql("select 1, E'a,b\\nc'; select 2, null")


def test_the_first_statement_that_fails_ends_them(postgres: Postgres) -> None:
    """An error is raised with PostgreSQL's words, and what follows it is not run."""
    with pytest.raises(SqlError, match="division by zero"):
        postgres.sql("select 1/0; create role postgres_test_never")
    assert [] == postgres.sql("select 1 from pg_roles where rolname = 'postgres_test_never'")


def test_a_login_works_with_its_password_alone(postgres: Postgres, app: str) -> None:
    """The right password logs in, a wrong one does not, and neither does a role that is not there."""
    tries = [(app, "made up"), (app, "wrong"), ("postgres_test_nobody", "made up")]
    assert [True, False, False] == [postgres.can_log_in(*each) for each in tries]


def test_a_login_that_was_taken_back_does_not_work(postgres: Postgres, app: str) -> None:
    """A role that may not log in any more is refused, whatever its password."""
    postgres.sql(f"alter role {app} nologin")
    assert (False, set()) == (postgres.can_log_in(app, "made up"), postgres.logins() & {app})


def test_another_user_runs_statements(postgres: Postgres, app: str) -> None:
    """Statements can be run as whoever has a password."""
    assert [(app,)] == postgres.sql("select current_user", user=app, password="made up")


def test_the_superuser_needs_a_password_at_the_port(postgres: Postgres) -> None:
    """Over the port the superuser's password is asked for, as everybody's is."""
    tries = [("postgres", postgres.password), ("postgres", "wrong")]
    assert [True, False] == [postgres.can_log_in(*each) for each in tries]
