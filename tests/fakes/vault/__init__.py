"""
A Vault that speaks the wire and keeps its state where a test can reach it.

    with FakeVault() as fake:
        fake.api("POST", "sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
        fake.api("POST", "secret/data/app", {"data": {"token": "made up"}})
        fake.front.fail(Cut(after=True), on="secret/", times=1)
        fake.vault.clock.advance(3600)

What it answers is measured by the recorded answers of a real server
(tests/vectors/vault) and by the contract tests, which the real one runs, too. It
refuses to be complete: it has what the broker's backend and its tests ask for.
"""
