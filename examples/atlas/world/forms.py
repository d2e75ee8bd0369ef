"""Ordinary model forms."""

from __future__ import annotations

from django import forms

from .models import City, Note


class NoteForm(forms.ModelForm):
    class Meta:
        model = Note
        fields = ("author", "text")
        widgets = {"text": forms.Textarea({"rows": 3})}


class CityForm(forms.ModelForm):
    """Its country field looks in the database, to list the choices and to check the one taken."""

    class Meta:
        model = City
        fields = ("name", "country", "population", "latitude", "longitude")
