"""
What each recorded answer of a real server means: declared here, by topic and name, in the order of the recording.

    name | KIND, for what is no success, and where it sends us
    name | what a success holds; "done" for nothing
"""

from types import MappingProxyType
from typing import Final

OUTCOMES: Final = MappingProxyType(
    {
        "auth": """
role id | data
secret id | data
approle login | auth 600 renewable 'broker'
approle bad secret id | REFUSED
approle bad role id | REFUSED
approle missing secret id | REFUSED
lookup-self | data
renew-self | auth 600 renewable 'broker'
renew-self beyond max_ttl (capped, warning) | auth 1800 renewable 'broker', capped
capabilities-self | data
read allowed | data
read denied by policy | FORBIDDEN
internal ui mounts, low privilege | data
revoke-self | done
read with a revoked token | FORBIDDEN
lookup-self with a revoked token | FORBIDDEN
wrapped secret id | wrapped
wrapping lookup | data
unwrap | data
unwrap again | WRAPPING_USED
wrapping lookup of a used token | WRAPPING_USED
userpass login | auth 300 renewable 'ann'
userpass wrong password 1 | REFUSED
userpass wrong password 2 | REFUSED
userpass wrong password 3 | REFUSED
userpass wrong password 4 | REFUSED
userpass wrong password 5 | REFUSED
userpass wrong password 6 | FORBIDDEN
userpass right password while locked out | FORBIDDEN
locked users | data
batch token | auth 300 batch ''
renew-self of a batch token | NOT_RENEWABLE
periodic token | auth 600 renewable ''
renew-self of a periodic token | auth 600 renewable ''
token with 1 use | auth 2.7648e+06 renewable ''
first use | data
second use | FORBIDDEN
token with ttl 2s | auth 2 renewable ''
read with an expired token | FORBIDDEN
token create with ttl beyond max (warning) | auth 3600 renewable '', capped
jwt login | auth 300 renewable 'host'
jwt expired | REFUSED
jwt wrong audience | REFUSED
jwt unknown role | UNKNOWN_ROLE
""",
        "cluster": """
health, active | done
health, standby | STANDBY
leader, asked of a standby | done
read at a standby 2 s after the first write, which it has not seen yet | ABSENT
write at a standby (forwarded) | data
write at a standby, forwarding off | REDIRECT http://127.0.0.1:8311/v1/secret/data/a
read at a standby right after the active node was killed | data
write at a standby right after the active node was killed | REDIRECT http://127.0.0.1:8311/v1/secret/data/a
health of a standby with no active node | STANDBY
leader, none | done
""",
        "database": """
mount database | done
config | done
config wrong password | REFUSED
role | done
creds | data, lease, renewable, 300s
creds of an unknown role | UNKNOWN_ROLE
creds of a role the connection does not allow | UNKNOWN_ROLE
lease lookup | data
lease renew | lease, renewable, 300s
lease renew beyond max_ttl (capped, warning) | lease, renewable, 1199s, capped
lease revoke, default (asynchronous) | done
lease renew after revoke | LEASE_GONE
lease revoke of a revoked lease | done
lease revoke, sync | done
lease renew unknown | LEASE_GONE
lease revoke unknown, sync | done
lease lookup unknown | LEASE_GONE
short creds | data, lease, renewable, 4s
short renew (limited by max_ttl) | lease, renewable, 6s, capped
short renew after max_ttl | LEASE_GONE
static role | done
static creds | data
static rotate | done
static creds after rotation | data
static creds unknown | UNKNOWN_ROLE
static role for an absent user | UNKNOWN_ROLE
revoke prefix | done
creds by a child token | data, lease, renewable, 300s
child token revoked | done
lease of a revoked token | LEASE_GONE
""",
        "engines": """
pki issue | data
pki issue with ttl beyond max | data
pki issue outside the role | REFUSED
pki issue with a lease | data, lease, 600s
pki lease revoke | done
pki lease renew | LEASE_GONE
pki sign | REFUSED
ssh sign | data
ssh otp | data, lease, 2.7648e+06s
totp code | data
transit key | data
transit sign | data
transit export denied | REFUSED
transit encrypt with unknown key type | REFUSED
""",
        "kv": """
mount kv2 | done
mount kv1 | done
internal ui mounts, kv2 | data
internal ui mounts, kv1 | data
kv2 write | data
kv2 write 2 | data
kv2 write 3 | data
kv2 read | data
kv2 read version 1 | data
kv2 read version unknown | ABSENT
kv2 delete versions | done
kv2 read soft-deleted | DELETED
kv2 destroy versions | done
kv2 read destroyed | DELETED
kv2 read absent | ABSENT
kv2 read without data/ (wrong path) | VERSIONED
kv2 write without data/ (wrong path) | VERSIONED
kv2 write cas mismatch | STALE
kv2 write cas=0 on existing | STALE
kv2 write cas ok | data
kv2 config cas_required | done
kv2 write cas missing | REFUSED
kv2 metadata | data
kv2 list | data
kv2 list empty | ABSENT
kv2 metadata with delete_version_after | done
kv2 write with delete_version_after | data
kv2 read with a deletion_time in the future | data
kv2 delete latest | done
kv2 read deleted latest | DELETED
kv2 nested value | data
kv2 read nested value | data
kv1 write | done
kv1 read | data, 1800s
kv1 read absent | ABSENT
kv1 list | data
""",
        "limits": """
rate limit quota | done
read under a quota 1 | data, 1800s
read under a quota 2 | LIMITED
read under a quota 3 | LIMITED
read under a quota 4 | LIMITED
read under a quota 5 | LIMITED
read under a quota 6 | LIMITED
write of 33 MiB | TOO_LARGE
write of 2 MiB | done
""",
        "namespaces": """
create namespace | data
mount in namespace | done
write in namespace | data
read in namespace by header | data
read in namespace by path | data
unknown namespace | NO_ROUTE
lock namespace | data
read in a locked namespace | NAMESPACE_LOCKED
""",
        "system": """
seal status, not initialised | done
health, not initialised | UNINITIALISED
read, not initialised | SEALED
init | done
health, sealed | SEALED
read, sealed | SEALED
login, sealed | SEALED
unseal | done
health, ready | done
seal status, ready | done
leader | done
unknown route | NO_ROUTE
no token | FORBIDDEN
bad token | FORBIDDEN
wrong method on a path | WRONG_METHOD
malformed JSON | REFUSED
seal | done
health, sealed again | SEALED
read, sealed again | SEALED
renew, sealed | SEALED
""",
    }
)
