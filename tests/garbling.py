"""Values as PostgreSQL sends them, and what may become of their bytes."""

from __future__ import annotations

import random

__all__ = ["SEEDS", "garble"]

#: A value of each type that has a decoder of its own, as text.
SEEDS = {
    "bool": "t",
    "int2": "-300",
    "int4": "70000",
    "int8": "-5000000000",
    "oid": "4294967295",
    "float4": "1.1",
    "float8": "-1.5e300",
    "numeric": "-12345.67890",
    "text": "héllo",
    "bytea": "\\x00ff5c27",
    "date": "2020-02-29",
    "time": "12:34:56.789",
    "timetz": "12:34:56.789+05:30",
    "timestamp": "2020-02-29 12:34:56.789",
    "timestamptz": "2020-02-29 12:34:56.789+00",
    "interval": "-1 year -2 mons +3 days -04:05:06.000001",
    "uuid": "12345678123456781234567812345678",
    "json": '{"a": [1, "é"]}',
    "jsonb": '{"a": [1, "é"]}',
    "inet": "10.1.2.3/8",
    "cidr": "2001:db8::/32",
    "hstore": '"a"=>"1", "b\\"c"=>NULL',
    "int4range": "[1,5)",
    "daterange": "[2020-01-01,)",
    "tstzrange": '["2020-01-01 00:00:00+00",)',
    "int4multirange": "{[1,5),[7,9)}",
    "int4[]": "[0:1][2:3]={{1,NULL},{3,4}}",
    "text[]": '{"a,b","c\\"d",NULL,""}',
    "numeric[]": "{1.5,NaN}",
    "hstore[]": '{"a=>1",NULL}',
    "int4range[]": '{"[1,5)",empty}',
}

INTERESTING = (
    0,
    1,
    2,
    4,
    0x7F,
    0x80,
    0xFF,
    ord('"'),
    ord("\\"),
    ord("{"),
    ord("}"),
    ord(","),
    ord("9"),
)


def garble(rng: random.Random, data: bytes) -> bytes:
    """Truncated, lengthened, bytes changed, a length field made huge or negative."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        match rng.randrange(6):
            case 0:
                del out[rng.randint(0, len(out)) :]
            case 1:
                at = rng.randint(0, len(out))
                out[at:at] = rng.randbytes(rng.randint(1, 5))
            case 2 if out:
                out[rng.randrange(len(out))] = rng.choice(INTERESTING)
            case 3 if out:
                out[rng.randrange(len(out))] = rng.randrange(256)
            case 4 if len(out) >= 4:
                at = rng.randrange(len(out) - 3)
                size = rng.choice([0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, len(out), 0])
                out[at : at + 4] = size.to_bytes(4, "big")
            case 5 if out:
                at = rng.randrange(len(out))
                del out[at : at + rng.randint(1, 4)]
    return bytes(out)
