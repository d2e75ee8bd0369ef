"""The shop's API with Django REST framework: nested serializers, generic views, a viewset."""

from __future__ import annotations

from typing import Any

from rest_framework import generics, routers, serializers, viewsets
from rest_framework.decorators import action, api_view
from rest_framework.request import Request
from rest_framework.response import Response

from recordshop.filters import RecordFilter
from recordshop.models import Artist, Record, Track


class TrackSerializer(serializers.ModelSerializer):
    class Meta:
        model = Track
        fields = ("side", "number", "title", "seconds")


class RecordSerializer(serializers.ModelSerializer):
    artist_name = serializers.CharField(source="artist.name", read_only=True)
    tracks = TrackSerializer(many=True, required=False)

    class Meta:
        model = Record
        fields = (
            "id", "title", "artist", "artist_name", "label", "styles", "released", "price",
            "copies", "is_featured", "tracks",
        )  # fmt: skip

    def create(self, validated_data: dict[str, Any]) -> Record:
        tracks = validated_data.pop("tracks", [])
        record = super().create(validated_data)
        Track.objects.bulk_create([Track(record=record, **track) for track in tracks])
        return record


class ArtistSerializer(serializers.ModelSerializer):
    records = serializers.SlugRelatedField("title", many=True, read_only=True)

    class Meta:
        model = Artist
        fields = ("id", "name", "formed", "records")


class RecordViewSet(viewsets.ModelViewSet):
    queryset = Record.objects.select_related("artist").prefetch_related("styles", "tracks")
    serializer_class = RecordSerializer
    filterset_class = RecordFilter

    @action(detail=True, methods=["post"])
    def sell(self, request: Request, pk: str | None = None) -> Response:
        record = self.get_object()
        if not record.copies:
            return Response({"detail": "Sold out."}, status=409)
        record.copies -= 1
        record.save()
        return Response({"copies": record.copies})


class ArtistList(generics.ListCreateAPIView):
    queryset = Artist.objects.prefetch_related("records")
    serializer_class = ArtistSerializer


class ArtistDetail(generics.RetrieveUpdateDestroyAPIView):
    queryset = Artist.objects.all()
    serializer_class = ArtistSerializer


@api_view(["GET"])
def whoami(request: Request) -> Response:
    return Response({"user": request.user.get_username()})


router = routers.DefaultRouter()
router.register("records", RecordViewSet)
