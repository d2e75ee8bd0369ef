"""Rows for the contract tests."""

from __future__ import annotations

from dataclasses import dataclass

from press.models import Article, Badge, Topic, Writer


@dataclass
class Seed:
    ann: Writer  # has badge 7 and the articles a, b, c
    bob: Writer  # has article d
    a: Article  # 500 words, topics art and law, reviewed by bob
    b: Article  # 1500 words, topic art
    c: Article  # 2500 words
    d: Article  # 50 words
    art: Topic
    law: Topic


async def seed() -> Seed:
    """Freshly made instances, their relations cached as given."""
    badge = await Badge.vinyl.create(number=7)
    ann = await Writer.vinyl.create(name="Ann", badge=badge, bio="long")
    bob = await Writer.vinyl.create(name="Bob")
    art, law = await Topic.vinyl.bulk_create([Topic(name="art"), Topic(name="law")])
    a = await Article.vinyl.create(title="a", words=500, author=ann, reviewer=bob, editor=bob)
    b = await Article.vinyl.create(title="b", words=1500, author=ann)
    c = await Article.vinyl.create(title="c", words=2500, author=ann)
    d = await Article.vinyl.create(title="d", words=50, author=bob)
    await a.topics.add(art, law)
    await b.topics.add(art)
    return Seed(ann, bob, a, b, c, d, art, law)
