"""What the shop has on its shelves."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

from django.contrib.auth.models import User

from recordshop.models import Artist, Label, Record, Style, Track

LABELS = {"Blue Note": "USA", "Columbia": "USA", "Impulse!": "USA", "ECM": "Germany"}
ARTISTS = {
    "Miles Davis": 1944,
    "John Coltrane": 1945,
    "Art Blakey": 1942,
    "Herbie Hancock": 1960,
    "Wayne Shorter": 1958,
    "Charles Mingus": 1943,
    "Keith Jarrett": 1966,
    "Pat Metheny": 1974,
}
# title, artist, label, released, price, copies, styles
RECORDS = (
    ("Kind of Blue", "Miles Davis", "Columbia", (1959, 8, 17), "29.90", 7, "Modal"),
    ("Milestones", "Miles Davis", "Columbia", (1958, 9, 2), "24.50", 2, "Hard bop,Modal"),
    ("In a Silent Way", "Miles Davis", "Columbia", (1969, 7, 30), "27.00", 0, "Fusion"),
    ("Blue Train", "John Coltrane", "Blue Note", (1958, 1, 1), "34.00", 4, "Hard bop"),
    ("A Love Supreme", "John Coltrane", "Impulse!", (1965, 1, 1), "31.50", 5, "Modal"),
    ("Moanin'", "Art Blakey", "Blue Note", (1959, 1, 1), "26.00", 3, "Hard bop"),
    ("Maiden Voyage", "Herbie Hancock", "Blue Note", (1965, 5, 17), "28.00", 6, "Modal"),
    ("Head Hunters", "Herbie Hancock", "Columbia", (1973, 10, 26), "22.00", 1, "Fusion"),
    ("Speak No Evil", "Wayne Shorter", "Blue Note", (1966, 6, 1), "29.00", 2, "Modal,Hard bop"),
    ("Mingus Ah Um", "Charles Mingus", "Columbia", (1959, 9, 14), "25.00", 0, "Hard bop"),
    ("The Köln Concert", "Keith Jarrett", "ECM", (1975, 11, 30), "33.00", 8, "Solo piano"),
    ("Bright Size Life", "Pat Metheny", "ECM", (1976, 3, 1), "23.50", 3, "Fusion"),
)
TRACKS = {
    "Kind of Blue": (
        ("A", 1, "So What", 562),
        ("A", 2, "Freddie Freeloader", 586),
        ("A", 3, "Blue in Green", 337),
        ("B", 1, "All Blues", 693),
        ("B", 2, "Flamenco Sketches", 566),
    ),
    "Blue Train": (
        ("A", 1, "Blue Train", 643),
        ("A", 2, "Moment's Notice", 550),
        ("B", 1, "Locomotion", 434),
        ("B", 2, "I'm Old Fashioned", 478),
        ("B", 3, "Lazy Bird", 420),
    ),
}


def fill_shelves() -> None:
    """Plain synchronous Django, for a migrated database; ``admin`` (``pw``) may do everything."""
    labels = {name: Label.objects.create(name=name, country=LABELS[name]) for name in LABELS}
    artists = {name: Artist.objects.create(name=name, formed=ARTISTS[name]) for name in ARTISTS}
    for title, artist, label, released, price, copies, styles in RECORDS:
        record = Record.objects.create(
            title=title,
            artist=artists[artist],
            label=labels[label],
            released=date(*released),
            price=Decimal(price),
            copies=copies,
        )
        names = styles.split(",")
        record.styles.set([Style.objects.get_or_create(name=name)[0] for name in names])
        for side, number, track, seconds in TRACKS.get(title, ()):
            Track.objects.create(
                record=record, side=side, number=number, title=track, seconds=seconds
            )
    User.objects.create_superuser("admin", "admin@example.com", "pw")
    User.objects.create_user("ann", "ann@example.com", "pw")
